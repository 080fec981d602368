// The tile of amx_tile.h for bfloat16 in pairs: tdpbf16ps makes 8,192 multiply-accumulates in its
// 16 cycles. It flushes subnormal operands and results to zero, whatever MXCSR says.
#pragma once

#include "cpu/amx_tile.h"
#include "ops/gemm_bf16.h"

namespace lepton {
namespace {

struct DotBf16 {
  static void upper_left() { _tile_dpbf16ps(0, 4, 6); }
  static void upper_right() { _tile_dpbf16ps(1, 4, 7); }
  static void lower_left() { _tile_dpbf16ps(2, 5, 6); }
  static void lower_right() { _tile_dpbf16ps(3, 5, 7); }
};

template <bool kLower>
void multiply(const GemmBf16PairsParams& params) {
  constexpr size_t kStride = 2 * kColumns * kLane, kElements = kDepth / sizeof(uint16_t);
  const uint16_t* lhs = params.lhs;
  const uint16_t* rhs = params.rhs;
  start<kLower, true>(params.dst, kStride, params.accumulate);
  for (size_t p = params.k; p > 0;
       p -= kElements, lhs += kElements, rhs += kElements * 2 * kColumns)
    step<DotBf16, kLower, true>(lhs, params.lhs_stride * sizeof(uint16_t), rhs, kStride);
  finish<kLower, true>(params.dst, kStride);
}

inline void gemm_32x32(const GemmBf16PairsParams& params) {
  const bool differs = params.m % kRows != 0;
  if (differs) configure(params.m, kDepth);  // for this call
  params.m > kRows ? multiply<true>(params) : multiply<false>(params);
  if (differs) hold_tiles(true);
}

}  // namespace
}  // namespace lepton
