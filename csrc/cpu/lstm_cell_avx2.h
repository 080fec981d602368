// The new state of eight units of an LSTM from their gates, in registers. With x' = e^x − 1,
// sigmoid(x) = 1 / (2 + (−x)') and tanh(x) = (2x)' / (2 + (2x)') need the same function of five
// arguments, and three divisions together. Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx2.h"

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

inline __m256 divisor_of(__m256 expm1) { return _mm256_add_ps(set1(2.0f), expm1); }
inline __m256 sigmoid_divisor(__m256 x, float limit) {
  return divisor_of(expm1_f32x8(negate(x), limit));
}

struct LstmState {
  __m256 c_f32x8, h_f32x8;
};

// The cell in four parts of about the same length, to be run in order, other work between them.
struct LstmCell {
  __m256 in, out, forget, cell;  // gates
  LstmState state;               // c before, then c and h
  __m256 e, divisor;

  template <size_t kPart>
  inline void run() {
    if constexpr (kPart == 0) {
      divisor = sigmoid_divisor(forget, kAlone);
    } else if constexpr (kPart == 1) {
      state.c_f32x8 = _mm256_div_ps(state.c_f32x8, divisor);
      e = expm1_f32x8(_mm256_add_ps(cell, cell), kPaired);
      divisor = _mm256_mul_ps(sigmoid_divisor(in, kPaired), divisor_of(e));
    } else if constexpr (kPart == 2) {
      state.c_f32x8 = _mm256_add_ps(state.c_f32x8, _mm256_div_ps(e, divisor));
      divisor = sigmoid_divisor(out, kPaired);
    } else {
      e = expm1_f32x8(_mm256_add_ps(state.c_f32x8, state.c_f32x8), kPaired);
      state.h_f32x8 = _mm256_div_ps(e, _mm256_mul_ps(divisor, divisor_of(e)));
    }
  }
};

inline LstmState lstm_cell(__m256 in, __m256 out, __m256 forget, __m256 cell, __m256 c) {
  LstmCell it = {in, out, forget, cell, {c, c}, c, c};
  it.run<0>();
  it.run<1>();
  it.run<2>();
  it.run<3>();
  return it.state;
}

}  // namespace
}  // namespace lepton
