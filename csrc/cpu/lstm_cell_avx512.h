// The new state of sixteen units of an LSTM from their gates, in registers: the formulas of
// lstm_cell_avx2.h. Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx512.h"

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

struct LstmState {
  __m512 c_f32x16, h_f32x16;
};

// The cell in four parts of about the same length, to be run in order, other work between them.
struct LstmCell {
  __m512 in, out, forget, cell;  // gates
  LstmState state;               // c before, then c and h
  __m512 e, divisor;

  template <size_t kPart>
  inline void run() {
    if constexpr (kPart == 0) {
      divisor = sigmoid_divisor(forget, kAlone);
    } else if constexpr (kPart == 1) {
      state.c_f32x16 = _mm512_div_ps(state.c_f32x16, divisor);
      e = expm1_f32x16(_mm512_add_ps(cell, cell), kPaired);
      divisor = mul(sigmoid_divisor(in, kPaired), divisor_of(e));
    } else if constexpr (kPart == 2) {
      state.c_f32x16 = _mm512_add_ps(state.c_f32x16, _mm512_div_ps(e, divisor));
      divisor = sigmoid_divisor(out, kPaired);
    } else {
      e = expm1_f32x16(_mm512_add_ps(state.c_f32x16, state.c_f32x16), kPaired);
      state.h_f32x16 = _mm512_div_ps(e, mul(divisor, divisor_of(e)));
    }
  }
};

inline LstmState lstm_cell(__m512 in, __m512 out, __m512 forget, __m512 cell, __m512 c) {
  LstmCell it = {in, out, forget, cell, {c, c}, c, c};
  it.run<0>();
  it.run<1>();
  it.run<2>();
  it.run<3>();
  return it.state;
}

}  // namespace
}  // namespace lepton
