// A 32x32 tile of dst in four AMX tiles: a step over 64 bytes of each row of lhs loads two tiles of
// lhs, sixteen rows where they lie, and two of rhs, whose rows hold four bytes of each of sixteen
// columns as panels have them, and multiplies each by each. Limited by the product, 16 cycles a
// tile, beside four loads of 8 cycles. The types of the values are those of Dot. Included after
// what defines the intrinsics, the processor's or those of a model.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {
namespace {

constexpr size_t kRows = 16, kColumns = 16, kLane = 4, kDepth = 64;  // the last two in bytes

// What ldtilecfg reads.
struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Compilers do not tell that the tile instructions read memory: what was stored must be there.
inline void finish_stores(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

// Tiles 0 to 3 are dst, by rows; 4 and 5 lhs; 6 and 7 rhs. depth: bytes of a row of lhs.
inline void configure(size_t m, size_t depth) {
  TileConfig config = {};
  config.palette = 1;
  const auto shape = [&](int tile, size_t rows, size_t bytes) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.row_bytes[tile] = static_cast<uint16_t>(rows == 0 ? 0 : bytes);
  };
  const size_t upper = m < kRows ? m : kRows, lower = m - upper;
  shape(0, upper, kColumns * kLane);
  shape(1, upper, kColumns * kLane);
  shape(2, lower, kColumns * kLane);
  shape(3, lower, kColumns * kLane);
  shape(4, upper, depth);
  shape(5, lower, depth);
  shape(6, depth / kLane, kColumns * kLane);
  shape(7, depth / kLane, kColumns * kLane);
  finish_stores(&config);
  _tile_loadconfig(&config);
}

inline void hold_tiles(bool hold) { hold ? configure(2 * kRows, kDepth) : _tile_release(); }

// dst: rows `stride` bytes apart. kLower: the rows beyond the first sixteen; kRight: the columns.
template <bool kLower, bool kRight>
inline void start(const void* dst, size_t stride, bool accumulate) {
  const auto* const upper = static_cast<const std::byte*>(dst);
  const std::byte* const lower = upper + kRows * stride;
  constexpr size_t kHalf = kColumns * kLane;
  if (accumulate) {
    _tile_loadd(0, upper, stride);
    if constexpr (kRight) _tile_loadd(1, upper + kHalf, stride);
    if constexpr (kLower) _tile_loadd(2, lower, stride);
    if constexpr (kLower && kRight) _tile_loadd(3, lower + kHalf, stride);
  } else {
    _tile_zero(0);
    if constexpr (kRight) _tile_zero(1);
    if constexpr (kLower) _tile_zero(2);
    if constexpr (kLower && kRight) _tile_zero(3);
  }
}

// Strides in bytes.
template <typename Dot, bool kLower, bool kRight>
inline void step(const void* lhs, size_t lhs_stride, const void* rhs, size_t rhs_stride) {
  _tile_loadd(6, rhs, rhs_stride);
  _tile_loadd(4, lhs, lhs_stride);
  Dot::upper_left();
  if constexpr (kRight) {
    _tile_loadd(7, static_cast<const std::byte*>(rhs) + kColumns * kLane, rhs_stride);
    Dot::upper_right();
  }
  if constexpr (kLower) {
    _tile_loadd(5, static_cast<const std::byte*>(lhs) + kRows * lhs_stride, lhs_stride);
    Dot::lower_left();
    if constexpr (kRight) Dot::lower_right();
  }
}

template <bool kLower, bool kRight>
inline void finish(void* dst, size_t stride) {
  auto* const upper = static_cast<std::byte*>(dst);
  std::byte* const lower = upper + kRows * stride;
  constexpr size_t kHalf = kColumns * kLane;
  _tile_stored(0, upper, stride);
  if constexpr (kRight) _tile_stored(1, upper + kHalf, stride);
  if constexpr (kLower) _tile_stored(2, lower, stride);
  if constexpr (kLower && kRight) _tile_stored(3, lower + kHalf, stride);
}

}  // namespace
}  // namespace lepton
