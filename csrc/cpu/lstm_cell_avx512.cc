// Sixteen units at a time, with the formulas of lstm_cell_avx2.cc. Bound by its three divisions,
// sixteen cycles each.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx512.h"
#include "ops/lstm_cell.h"

namespace lepton {
namespace {

constexpr float kPaired = 40.0f, kAlone = 87.0f;

// e^x − 1, x cut off at ±limit: 40 moves neither function by more than 1e-17, and products of two
// divisors stay finite; 87 suits one that stands alone.
inline __m512 expm1_f32x16(__m512 x, float limit) {
  x = _mm512_min_ps(set16(limit), _mm512_max_ps(set16(-limit), x));
  // Adding 1.5 · 2^23 rounds to an integer n; 127 more makes the low bits the exponent of 2^n.
  const __m512 shift = set16(12583039.0f);
  const __m512 shifted = fma(x, set16(1.442695041f), shift);
  const __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
  return fma(exp_fraction(sub(shifted, shift), x), scale, sub(scale, set16(1.0f)));
}

inline __m512 divisor_of(__m512 expm1) { return _mm512_add_ps(set16(2.0f), expm1); }
inline __m512 sigmoid_divisor(__m512 x, float limit) {
  return divisor_of(expm1_f32x16(sub(set16(0.0f), x), limit));
}

// sigmoid(s) · tanh(t)
inline __m512 gated_tanh(__m512 s, __m512 t) {
  const __m512 e = expm1_f32x16(_mm512_add_ps(t, t), kPaired);
  return _mm512_div_ps(e, mul(sigmoid_divisor(s, kPaired), divisor_of(e)));
}

}  // namespace

void lstm_cell_f32_avx512(size_t n, const float* gates, float* c, float* h) {
  for (size_t j = 0; j < n; j += 16) {
    const __mmask16 lanes = first_lanes(n - j);
    const auto gate = [&](size_t i) { return _mm512_maskz_loadu_ps(lanes, gates + i * n + j); };
    const __m512 kept =
        _mm512_div_ps(_mm512_maskz_loadu_ps(lanes, c + j), sigmoid_divisor(gate(2), kAlone));
    const __m512 next = _mm512_add_ps(kept, gated_tanh(gate(0), gate(3)));
    _mm512_mask_storeu_ps(c + j, lanes, next);
    _mm512_mask_storeu_ps(h + j, lanes, gated_tanh(gate(1), next));
  }
}

}  // namespace lepton
