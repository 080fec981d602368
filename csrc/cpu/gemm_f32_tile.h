// gemm_f32 for any width of vector V: a tile of two registers of rhs, one broadcast of lhs and two
// accumulators a row. For each p two loads of the panel and a broadcast a row, straight from lhs,
// feed two FMAs a row; the limit is the two FMA pipes. Fewer rows run the same code with fewer
// accumulators, so every element is the same chain of FMAs whatever the tile's height. Internal
// linkage throughout.
#pragma once

#include "cpu/gemm_f32_step.h"
#include "cpu/rows.h"
#include "ops/gemm_f32.h"

namespace lepton {
namespace {

template <typename V, size_t kRows>
void tile(const GemmF32Params& params) {
  constexpr size_t kNr = 2 * V::lanes;
  V sum[kRows][2];
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    const float* const dst = params.dst + i * kNr;
    sum[i][0] = params.accumulate ? V::load(dst) : V::set(0.f);
    sum[i][1] = params.accumulate ? V::load(dst + V::lanes) : V::set(0.f);
  }
  const float* lhs = params.lhs;
  const float* rhs = params.rhs;
  const float* next = params.prefetch == nullptr ? rhs : params.prefetch;
  for (size_t p = params.k; p > 0; --p, ++lhs, rhs += kNr, next += params.prefetch_step) {
    prefetch_share<V>(next, params.prefetch_step);
    gemm_f32_step(lhs, params.lhs_stride, rhs, sum);
  }
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    V::store(params.dst + i * kNr, sum[i][0]);
    V::store(params.dst + i * kNr + V::lanes, sum[i][1]);
  }
}

template <typename V, size_t kMost>
void gemm_f32(const GemmF32Params& params) {
  with_rows<kMost>(params.m, [&](auto rows) { tile<V, rows>(params); });
}

}  // namespace
}  // namespace lepton
