// gemm_f32_fused for any width of vector V: the tile of gemm_f32_tile.h with bias, residual and
// clamp added in registers: with few products a result, storing the sums and reading them again
// would take longer than making them. Where one vector holds the columns left, half of the tile is
// computed. The limit is the two FMA pipes, or in half a tile the loads of lhs. Internal linkage
// throughout.
#pragma once

#include "cpu/gemm_f32_step.h"
#include "cpu/lanes.h"
#include "cpu/rows.h"
#include "ops/gemm_f32_fused.h"

namespace lepton {
namespace {

// Vector v of the columns of every row. Without a bias or a residual nothing is added: −0 + 0 would
// be +0.
template <typename V, size_t kRows, size_t kVectors, typename Lanes>
inline void finish(const GemmF32FusedParams& params, size_t v, const V (&sum)[kRows][kVectors],
                   const Lanes& lanes) {
  const size_t c = v * V::lanes;
  const V min = V::set(params.min), max = V::set(params.max);
  const V bias = params.bias != nullptr ? lanes.load(params.bias + c) : V::set(0.f);
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    V y = sum[i][v];
    if (params.bias != nullptr) y = y + bias;
    if (params.residual != nullptr)
      y = y + lanes.load(params.residual + i * params.residual_stride + c);
    lanes.store(params.dst + i * params.dst_stride + c, clamp(y, min, max));
  }
}

template <typename V, size_t kRows, size_t kVectors>
void tile(const GemmF32FusedParams& params) {
  constexpr size_t kNr = 2 * V::lanes;
  V sum[kRows][kVectors];
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) sum[i][v] = V::set(0.f);
  const float* lhs = params.lhs;
  const float* rhs = params.rhs;
  const float* next = params.prefetch == nullptr ? rhs : params.prefetch;
  for (size_t p = params.k; p > 0; --p, ++lhs, rhs += kNr, next += params.prefetch_step) {
    prefetch_share<V>(next, params.prefetch_step);
    gemm_f32_step(lhs, params.lhs_stride, rhs, sum);
  }
  constexpr size_t kLast = kVectors - 1;
  if (kLast > 0) finish(params, 0, sum, Whole<V>());
  const size_t left = params.n - kLast * V::lanes;
  left < V::lanes ? finish(params, kLast, sum, First<V>{left})
                  : finish(params, kLast, sum, Whole<V>());
}

template <typename V, size_t kMost>
void gemm_f32_fused(const GemmF32FusedParams& params) {
  with_rows<kMost>(params.m, [&](auto rows) {
    params.n > V::lanes ? tile<V, rows, 2>(params) : tile<V, rows, 1>(params);
  });
}

}  // namespace
}  // namespace lepton
