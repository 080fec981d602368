// gemm_bf16 for any width of vector V: a tile of a few rows, or a row against several panels. A
// vector of weights is two rows of V::lanes columns: a shift makes floats of the even row, a mask
// of the odd one, so the weights of 2 · lanes products cost a load and two such instructions. With
// one row the limit is the bandwidth of the weights, half the bytes of floats, and several panels
// give it accumulators enough; with many it is the FMA pipes, which the unpacking shares (a twelfth
// of the time for twelve rows). Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include "cpu/gemm_f32_step.h"
#include "cpu/rows.h"
#include "ops/gemm_bf16.h"

namespace lepton {
namespace {

// How far ahead weights are asked for, in elements: the hardware's own prefetch stops at every
// page.
constexpr size_t kAhead = 2048;

// One row of the weights by one value of each row of lhs.
template <bool kOdd, typename V, size_t kPanels, size_t kRows>
inline void step(const GemmBf16Params& params, const float* lhs, const uint16_t* rhs,
                 V (&sum)[kPanels][kRows][2]) {
#pragma GCC unroll 4
  for (size_t i = 0; i < kPanels; ++i) {
    const uint16_t* const pairs = rhs + i * params.panel_stride;
    V panel[2];
#pragma GCC unroll 2
    for (size_t v = 0; v < 2; ++v)
      panel[v] = kOdd ? V::upper(pairs + v * 2 * V::lanes) : V::lower(pairs + v * 2 * V::lanes);
    multiply_row(lhs, params.lhs_stride, panel, sum[i]);
  }
}

template <typename V, size_t kPanels, size_t kRows>
void tile(const GemmBf16Params& params) {
  constexpr size_t kNr = 2 * V::lanes, kLine = 64 / sizeof(uint16_t);
  V sum[kPanels][kRows][2];
#pragma GCC unroll 4
  for (size_t i = 0; i < kPanels; ++i)
#pragma GCC unroll 12
    for (size_t row = 0; row < kRows; ++row) sum[i][row][0] = sum[i][row][1] = V::set(0.f);
  const float* lhs = params.lhs;
  const uint16_t* rhs = params.rhs;
  for (size_t pairs = params.k / 2; pairs > 0; --pairs, lhs += 2, rhs += 2 * kNr) {
#pragma GCC unroll 4
    for (size_t i = 0; i < kPanels; ++i)
#pragma GCC unroll 2
      for (size_t line = 0; line < 2 * kNr; line += kLine)
        _mm_prefetch(rhs + i * params.panel_stride + kAhead + line, _MM_HINT_T0);
    step<false>(params, lhs, rhs, sum);
    step<true>(params, lhs + 1, rhs, sum);
  }
  if (params.k % 2 != 0) step<false>(params, lhs, rhs, sum);
#pragma GCC unroll 4
  for (size_t i = 0; i < kPanels; ++i)
#pragma GCC unroll 12
    for (size_t row = 0; row < kRows; ++row) {
      float* const dst = params.dst + (row * kPanels + i) * kNr;
      V::store(dst, sum[i][row][0]);
      V::store(dst + V::lanes, sum[i][row][1]);
    }
}

template <typename V, size_t kPanels, size_t kMost>
void gemm_bf16(const GemmBf16Params& params) {
  if (params.panels > 1)
    with_rows<kPanels>(params.panels, [&](auto panels) { tile<V, panels, 1>(params); });
  else
    with_rows<kMost>(params.m, [&](auto rows) { tile<V, 1, rows>(params); });
}

template <typename V>
void unpack_bf16(const uint16_t* panel, size_t k, float* dst) {
  constexpr size_t kNr = 2 * V::lanes;
  for (; k > 1; k -= 2, panel += 2 * kNr, dst += 2 * kNr) {
    V::store(dst, V::lower(panel));
    V::store(dst + V::lanes, V::lower(panel + kNr));
    V::store(dst + kNr, V::upper(panel));
    V::store(dst + kNr + V::lanes, V::upper(panel + kNr));
  }
  if (k == 0) return;
  V::store(dst, V::lower(panel));
  V::store(dst + V::lanes, V::lower(panel + kNr));
}

}  // namespace
}  // namespace lepton
