// The tile instructions of AMX in portable C++, after the operation sections of Intel's manual
// (volume 2, LDTILECFG to TILEZERO): tests compile the kernels once more against these functions,
// which have the names of the intrinsics, and so run their code on any machine. Each thread has its
// own tiles. What a processor would raise an exception for ends the process with a sentence; so
// does a thread that ends with its tiles still configured.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace lepton {
namespace {

constexpr int kTiles = 8;  // of palette 1, as the next two
constexpr int kTileMaxRows = 16, kTileMaxBytes = 64;

struct Tile {
  int rows = 0, bytes = 0;  // as configured
  uint8_t data[kTileMaxRows][kTileMaxBytes] = {};
};

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "tile model: %s\n", what);
  std::abort();
}

struct TileState {
  bool configured = false;
  Tile tiles[kTiles];
  ~TileState() { require(!configured, "the thread ends without having released its tiles"); }
};
inline TileState& tile_state() {
  thread_local TileState state;
  return state;
}

inline Tile& tile_at(int i) {
  TileState& state = tile_state();
  require(state.configured, "no tiles are configured");
  require(i >= 0 && i < kTiles && state.tiles[i].rows > 0, "the tile is not configured");
  return state.tiles[i];
}

// Data beyond the configured bytes and rows reads as zero afterwards.
inline void clear_from(Tile& tile, int row) {
  std::memset(tile.data[row], 0, sizeof tile.data - static_cast<size_t>(row) * kTileMaxBytes);
}

inline void _tile_release() {
  TileState& state = tile_state();
  state.configured = false;
  for (Tile& tile : state.tiles) tile = {};
}

inline void _tile_loadconfig(const void* config) {
  constexpr int kEntries = 16, kColsb = 16, kRows = 48;
  uint8_t bytes[64];
  std::memcpy(bytes, config, sizeof bytes);
  if (bytes[0] == 0) return _tile_release();
  require(bytes[0] == 1, "the palette is unknown");
  require(bytes[1] == 0, "start_row is not zero");
  for (int i = 2; i < kColsb; ++i) require(bytes[i] == 0, "reserved bytes are not zero");
  TileState& state = tile_state();
  for (int i = 0; i < kEntries; ++i) {
    const int colsb = bytes[kColsb + 2 * i] | bytes[kColsb + 2 * i + 1] << 8;
    const int rows = bytes[kRows + i];
    require(colsb <= kTileMaxBytes && rows <= kTileMaxRows, "a tile is larger than the palette's");
    require((colsb == 0) == (rows == 0), "a tile has rows or columns only");
    require(i < kTiles || rows == 0, "a tile beyond the palette's is configured");
    if (i >= kTiles) continue;
    state.tiles[i] = {};
    state.tiles[i].rows = rows, state.tiles[i].bytes = colsb;
  }
  state.configured = true;
}

inline void _tile_zero(int dst) { clear_from(tile_at(dst), 0); }

inline void _tile_loadd(int dst, const void* base, size_t stride) {
  Tile& tile = tile_at(dst);
  clear_from(tile, 0);
  for (int i = 0; i < tile.rows; ++i)
    std::memcpy(tile.data[i], static_cast<const uint8_t*>(base) + static_cast<size_t>(i) * stride,
                static_cast<size_t>(tile.bytes));
}

inline void _tile_stored(int src, void* base, size_t stride) {
  const Tile& tile = tile_at(src);
  for (int i = 0; i < tile.rows; ++i)
    std::memcpy(static_cast<uint8_t*>(base) + static_cast<size_t>(i) * stride, tile.data[i],
                static_cast<size_t>(tile.bytes));
}

// What every product asks of its operands, whose columns are quads of bytes or pairs of bfloat16.
inline void require_product(int dst, int lhs, int rhs) {
  require(dst != lhs && lhs != rhs && dst != rhs, "operands are the same tile");
  const Tile &sum = tile_at(dst), &a = tile_at(lhs), &b = tile_at(rhs);
  require(sum.bytes % 4 == 0 && a.bytes % 4 == 0 && b.bytes % 4 == 0,
          "rows are no multiple of four bytes");
  require(sum.rows == a.rows && sum.bytes == b.bytes && a.bytes / 4 == b.rows,
          "the shapes of the operands do not agree");
}

// sum[m][n] += lhs[m][k..k+3] · rhs[k/4][n][0..3]: unsigned by signed bytes, modulo 2^32.
inline void _tile_dpbusd(int dst, int lhs, int rhs) {
  require_product(dst, lhs, rhs);
  Tile& sum = tile_at(dst);
  const Tile &a = tile_at(lhs), &b = tile_at(rhs);
  for (int m = 0; m < a.rows; ++m) {
    uint32_t row[kTileMaxBytes / 4];
    std::memcpy(row, sum.data[m], sizeof row);
    for (int k = 0; k < a.bytes / 4; ++k)
      for (int n = 0; n < b.bytes / 4; ++n)
        for (int q = 0; q < 4; ++q)
          row[n] += static_cast<uint32_t>(static_cast<int32_t>(a.data[m][4 * k + q]) *
                                          static_cast<int8_t>(b.data[k][4 * n + q]));
    std::memcpy(sum.data[m], row, sizeof row);
    std::memset(sum.data[m] + sum.bytes, 0, static_cast<size_t>(kTileMaxBytes - sum.bytes));
  }
  clear_from(sum, sum.rows);
}

// Subnormal numbers count as zero, among operands and results.
inline float flushed(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7F800000u) == 0) bits &= 0x80000000u;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float bfloat16_at(const uint8_t* at) {
  uint16_t half;
  std::memcpy(&half, at, sizeof half);
  const uint32_t bits = uint32_t{half} << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return flushed(x);
}

// sum[m][n] += lhs[m][k, k + 1] · rhs[k/2][n][0, 1] in bfloat16: the even and the odd products of
// all k are summed each by itself, by fused multiply-adds, before both sums meet the old one.
inline void _tile_dpbf16ps(int dst, int lhs, int rhs) {
  require_product(dst, lhs, rhs);
  Tile& sum = tile_at(dst);
  const Tile &a = tile_at(lhs), &b = tile_at(rhs);
  for (int m = 0; m < a.rows; ++m) {
    float row[kTileMaxBytes / 4];
    std::memcpy(row, sum.data[m], sizeof row);
    for (int n = 0; n < b.bytes / 4; ++n) {
      float part[2] = {};
      for (int k = 0; k < a.bytes / 4; ++k)
        for (int q = 0; q < 2; ++q)
          part[q] = flushed(std::fma(bfloat16_at(a.data[m] + 4 * k + 2 * q),
                                     bfloat16_at(b.data[k] + 4 * n + 2 * q), part[q]));
      row[n] = flushed(flushed(row[n]) + flushed(part[0] + part[1]));
    }
    std::memcpy(sum.data[m], row, sizeof row);
    std::memset(sum.data[m] + sum.bytes, 0, static_cast<size_t>(kTileMaxBytes - sum.bytes));
  }
  clear_from(sum, sum.rows);
}

}  // namespace
}  // namespace lepton
