// A 32x32 tile of dst in four AMX tiles: a step over 64 of p loads two tiles of lhs, sixteen rows
// of 64 bytes where they lie, and two of rhs, whose rows are the quads of sixteen columns as panels
// have them, and multiplies each by each. Limited by tdpbusd, 16 cycles each for 16,384
// multiply-accumulates, beside four loads of 8 cycles. Included after what defines the intrinsics,
// the processor's or those of a model.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/gemm_s8.h"

namespace lepton {
namespace {

constexpr size_t kRows = 16, kColumns = 16, kKr = 4, kDepth = 64;

// What ldtilecfg reads.
struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Compilers do not tell that the tile instructions read memory: what was stored must be there.
inline void finish_stores(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

// Tiles 0 to 3 are dst, by rows; 4 and 5 lhs; 6 and 7 rhs.
inline void configure(size_t m, size_t depth) {
  TileConfig config = {};
  config.palette = 1;
  const auto shape = [&](int tile, size_t rows, size_t bytes) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.row_bytes[tile] = static_cast<uint16_t>(rows == 0 ? 0 : bytes);
  };
  const size_t upper = m < kRows ? m : kRows, lower = m - upper;
  shape(0, upper, kColumns * sizeof(int32_t));
  shape(1, upper, kColumns * sizeof(int32_t));
  shape(2, lower, kColumns * sizeof(int32_t));
  shape(3, lower, kColumns * sizeof(int32_t));
  shape(4, upper, depth);
  shape(5, lower, depth);
  shape(6, depth / kKr, kColumns * kKr);
  shape(7, depth / kKr, kColumns * kKr);
  finish_stores(&config);
  _tile_loadconfig(&config);
}

// kLower: the rows beyond the first sixteen; kRight: the columns.
template <bool kLower, bool kRight>
inline void start(const GemmS8Params& params) {
  const size_t stride = params.n * sizeof(int32_t);
  const int32_t* const lower = params.dst + kRows * params.n;
  if (params.accumulate) {
    _tile_loadd(0, params.dst, stride);
    if constexpr (kRight) _tile_loadd(1, params.dst + kColumns, stride);
    if constexpr (kLower) _tile_loadd(2, lower, stride);
    if constexpr (kLower && kRight) _tile_loadd(3, lower + kColumns, stride);
  } else {
    _tile_zero(0);
    if constexpr (kRight) _tile_zero(1);
    if constexpr (kLower) _tile_zero(2);
    if constexpr (kLower && kRight) _tile_zero(3);
  }
}

template <bool kLower, bool kRight>
inline void step(const uint8_t* lhs, size_t lhs_stride, const int8_t* rhs, size_t rhs_stride) {
  _tile_loadd(6, rhs, rhs_stride);
  _tile_loadd(4, lhs, lhs_stride);
  _tile_dpbusd(0, 4, 6);
  if constexpr (kRight) {
    _tile_loadd(7, rhs + kColumns * kKr, rhs_stride);
    _tile_dpbusd(1, 4, 7);
  }
  if constexpr (kLower) {
    _tile_loadd(5, lhs + kRows * lhs_stride, lhs_stride);
    _tile_dpbusd(2, 5, 6);
    if constexpr (kRight) _tile_dpbusd(3, 5, 7);
  }
}

// The last k % 64, of k >= 64: lhs is read from 64 before its end, and rhs from a copy that has
// zeros where that repeats what was multiplied before.
template <bool kLower, bool kRight>
inline void last_step(const GemmS8Params& params, const int8_t* rest, size_t quads) {
  constexpr size_t kStride = (kRight ? 2 : 1) * kColumns * kKr;
  alignas(64) int8_t rhs[kDepth / kKr][kStride];
  const size_t repeated = kDepth / kKr - quads;
  for (size_t q = 0; q < repeated; ++q) __builtin_memset(rhs[q], 0, kStride);
  for (size_t q = 0; q < quads; ++q)
    __builtin_memcpy(rhs[repeated + q], rest + q * kStride, kStride);
  finish_stores(rhs);
  const uint8_t* const lhs = static_cast<const uint8_t*>(params.lhs) + params.k - kDepth;
  step<kLower, kRight>(lhs, params.lhs_stride, rhs[0], kStride);
}

template <bool kLower, bool kRight>
inline void finish(const GemmS8Params& params) {
  const size_t stride = params.n * sizeof(int32_t);
  int32_t* const lower = params.dst + kRows * params.n;
  _tile_stored(0, params.dst, stride);
  if constexpr (kRight) _tile_stored(1, params.dst + kColumns, stride);
  if constexpr (kLower) _tile_stored(2, lower, stride);
  if constexpr (kLower && kRight) _tile_stored(3, lower + kColumns, stride);
}

template <bool kLower, bool kRight>
void multiply(const GemmS8Params& params) {
  const size_t rhs_stride = params.n * kKr;
  const uint8_t* lhs = static_cast<const uint8_t*>(params.lhs);
  const int8_t* rhs = static_cast<const int8_t*>(params.rhs);
  start<kLower, kRight>(params);
  size_t p = params.k;
  if (p > 0 && p < kDepth) {
    step<kLower, kRight>(lhs, params.lhs_stride, rhs, rhs_stride);
  } else {
    for (; p >= kDepth; p -= kDepth, lhs += kDepth, rhs += kDepth * params.n)
      step<kLower, kRight>(lhs, params.lhs_stride, rhs, rhs_stride);
    if (p > 0) last_step<kLower, kRight>(params, rhs, p / kKr);
  }
  finish<kLower, kRight>(params);
}

inline void hold_tiles(bool hold) { hold ? configure(2 * kRows, kDepth) : _tile_release(); }

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
