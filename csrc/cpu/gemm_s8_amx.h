// The tile of amx_tile.h for unsigned by signed bytes, in quads: lhs where it lies in the tensor.
// tdpbusd makes 16,384 multiply-accumulates in its 16 cycles.
#pragma once

#include "cpu/amx_tile.h"
#include "ops/gemm_s8.h"

namespace lepton {
namespace {

struct DotU8S8 {
  static void upper_left() { _tile_dpbusd(0, 4, 6); }
  static void upper_right() { _tile_dpbusd(1, 4, 7); }
  static void lower_left() { _tile_dpbusd(2, 5, 6); }
  static void lower_right() { _tile_dpbusd(3, 5, 7); }
};

// The last k % 64, of k >= 64: lhs is read from 64 before its end, and rhs from a copy that has
// zeros where that repeats what was multiplied before.
template <bool kLower, bool kRight>
inline void last_step(const GemmS8Params& params, const int8_t* rest, size_t quads) {
  constexpr size_t kStride = (kRight ? 2 : 1) * kColumns * kLane;
  alignas(64) int8_t rhs[kDepth / kLane][kStride];
  const size_t repeated = kDepth / kLane - quads;
  for (size_t q = 0; q < repeated; ++q) __builtin_memset(rhs[q], 0, kStride);
  for (size_t q = 0; q < quads; ++q)
    __builtin_memcpy(rhs[repeated + q], rest + q * kStride, kStride);
  finish_stores(rhs);
  const uint8_t* const lhs = static_cast<const uint8_t*>(params.lhs) + params.k - kDepth;
  step<DotU8S8, kLower, kRight>(lhs, params.lhs_stride, rhs[0], kStride);
}

template <bool kLower, bool kRight>
void multiply(const GemmS8Params& params) {
  const size_t rhs_stride = params.n * kLane, dst_stride = params.n * sizeof(int32_t);
  const uint8_t* lhs = static_cast<const uint8_t*>(params.lhs);
  const int8_t* rhs = static_cast<const int8_t*>(params.rhs);
  start<kLower, kRight>(params.dst, dst_stride, params.accumulate);
  size_t p = params.k;
  if (p > 0 && p < kDepth) {
    step<DotU8S8, kLower, kRight>(lhs, params.lhs_stride, rhs, rhs_stride);
  } else {
    for (; p >= kDepth; p -= kDepth, lhs += kDepth, rhs += kDepth * params.n)
      step<DotU8S8, kLower, kRight>(lhs, params.lhs_stride, rhs, rhs_stride);
    if (p > 0) last_step<kLower, kRight>(params, rhs, p / kLane);
  }
  finish<kLower, kRight>(params.dst, dst_stride);
}

inline void gemm_32x32(const GemmS8Params& params) {
  // Tiles of other rows or of fewer products a row, for this call.
  const bool shallow = params.k > 0 && params.k < kDepth;
  const bool differs = params.m % kRows != 0 || shallow;
  if (differs) configure(params.m, shallow ? params.k : kDepth);
  const bool right = params.n > kColumns;
  if (params.m > kRows)
    right ? multiply<true, true>(params) : multiply<true, false>(params);
  else
    right ? multiply<false, true>(params) : multiply<false, false>(params);
  if (differs) hold_tiles(true);
}

}  // namespace
}  // namespace lepton
