// Eight units at a time, from gates to state in registers: one read of each gate and nothing stored
// in between. With x' = e^x − 1, sigmoid(x) = 1 / (2 + (−x)') and tanh(x) = (2x)' / (2 + (2x)')
// need the same function of five arguments, and three divisions together. Bound by its arithmetic.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx2.h"
#include "ops/lstm_cell.h"

namespace lepton {
namespace {

constexpr float kPaired = 40.0f, kAlone = 87.0f;

// e^x − 1, x cut off at ±limit: 40 moves neither function by more than 1e-17, and products of two
// divisors stay finite; 87 suits one that stands alone.
inline __m256 expm1_f32x8(__m256 x, float limit) {
  x = _mm256_min_ps(set1(limit), _mm256_max_ps(set1(-limit), x));
  // Adding 1.5 · 2^23 rounds to an integer n; 127 more makes the low bits the exponent of 2^n.
  const __m256 shift = set1(12583039.0f);
  const __m256 shifted = fma(x, set1(1.442695041f), shift);
  const __m256 n = _mm256_sub_ps(shifted, shift);
  const __m256 scale = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
  return fma(exp_fraction(n, x), scale, _mm256_sub_ps(scale, set1(1.0f)));
}

// sigmoid(s) · tanh(t)
inline __m256 gated_tanh(__m256 s, __m256 t) {
  const __m256 two = set1(2.0f);
  const __m256 divisor = _mm256_add_ps(two, expm1_f32x8(negate(s), kPaired));
  const __m256 e = expm1_f32x8(_mm256_add_ps(t, t), kPaired);
  return _mm256_div_ps(e, _mm256_mul_ps(divisor, _mm256_add_ps(two, e)));
}

struct State {
  __m256 c_f32x8, h_f32x8;
};

inline State step(__m256 in, __m256 out, __m256 forget, __m256 cell, __m256 c) {
  const __m256 divisor = _mm256_add_ps(set1(2.0f), expm1_f32x8(negate(forget), kAlone));
  const __m256 next = _mm256_add_ps(_mm256_div_ps(c, divisor), gated_tanh(in, cell));
  return {next, gated_tanh(out, next)};
}

}  // namespace

void lstm_cell_f32_avx2(size_t n, const float* gates, float* c, float* h) {
  const auto gate = [&](size_t i, size_t j) { return _mm256_loadu_ps(gates + i * n + j); };
  size_t j = 0;
  for (; j + 8 <= n; j += 8) {
    const State next = step(gate(0, j), gate(1, j), gate(2, j), gate(3, j), _mm256_loadu_ps(c + j));
    _mm256_storeu_ps(c + j, next.c_f32x8);
    _mm256_storeu_ps(h + j, next.h_f32x8);
  }
  const size_t rest = n - j;
  if (rest == 0) return;
  const auto tail = [&](size_t i) { return load_tail(gates + i * n + j, rest); };
  const State next = step(tail(0), tail(1), tail(2), tail(3), load_tail(c + j, rest));
  store_tail(c + j, next.c_f32x8, rest);
  store_tail(h + j, next.h_f32x8, rest);
}

}  // namespace lepton
