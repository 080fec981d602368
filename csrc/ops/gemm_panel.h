// One panel of a packed rhs against a block of rows: what the drivers of the GEMM families share
// below their epilogues. Included by drivers only.
#pragma once

#include <algorithm>
#include <cstddef>

#include "ops/gemm.h"
#include "ops/op.h"

namespace lepton {

// Half of a first-level cache of 32 KB: the piece of a panel that all rows of an accumulator block
// use.
constexpr size_t kPanelPieceBytes = 16 * 1024;
// Rows that one epilogue call takes: several register tiles, still small against L1.
constexpr size_t kAccumulatorRows = 24;
inline size_t accumulator_rows(size_t mr) {
  return mr >= kAccumulatorRows ? mr : kAccumulatorRows / mr * mr;
}

// What will be read after a panel, brought into L2 line by line while the panel is multiplied: from
// further away it would arrive at a third of the rate at which kernels read it.
struct Prefetch {
  const std::byte* at;
  size_t lines;   // still to come
  size_t share;   // of one register tile
  size_t left;    // more of them, which a kernel fetches as it goes,
  size_t stride;  // this far apart
  // Where those begin that are left to the kernel; or null.
  const std::byte* leave() {
    if (lines == 0 || left == 0) return nullptr;
    const std::byte* const from = at;
    const size_t count = std::min(left, lines);
    at += count * kCacheLine;
    lines -= count;
    return from;
  }
  void take() {
    const size_t count = std::min(share, lines);
    for (size_t i = 0; i < count; ++i) __builtin_prefetch(at + i * kCacheLine, 0, 2);
    at += count * kCacheLine;
    lines -= count;
  }
};

// One panel's product of `rows` rows to acc[rows][width]. Where the panel is larger than its share
// of L1 and several register tiles want it, k is cut, and every tile uses one piece before the next
// is loaded.
struct PanelProduct {
  size_t mr, kr, width;
  size_t element;  // bytes of a value of either operand
  size_t k, rows;
  bool whole_k;  // the panel cannot be cut
  const void* lhs;
  size_t lhs_stride;
  const void* panel;
  Prefetch* next;
};
inline size_t panel_pieces(const PanelProduct& x) {
  const size_t bytes = x.k * x.width * x.element;
  return x.rows > x.mr && !x.whole_k ? ceil_div(bytes, kPanelPieceBytes) : 1;
}

template <typename Params, typename Run, typename Accumulator>
void multiply_panel(const Run& run, const PanelProduct& x, Accumulator* acc) {
  const size_t pieces = panel_pieces(x);
  const size_t depth = pieces > 1 ? round_up(ceil_div(x.k, pieces), x.kr) : x.k;
  const auto* const lhs = static_cast<const std::byte*>(x.lhs);
  const auto* const panel = static_cast<const std::byte*>(x.panel);
  size_t p = 0;
  do {
    for (size_t i = 0; i < x.rows; i += x.mr) {
      Params params = {};
      const void* const from = lhs + (i * x.lhs_stride + p) * x.element;
      const void* const rhs = panel + p * x.width * x.element;
      params.m = std::min(x.mr, x.rows - i);
      params.k = std::min(depth, x.k - p);
      params.lhs = static_cast<decltype(params.lhs)>(from);
      params.lhs_stride = x.lhs_stride;
      params.rhs = static_cast<decltype(params.rhs)>(rhs);
      params.dst = acc + i * x.width;
      params.accumulate = p > 0;
      x.next->take();
      run(params);
    }
    p += depth;
  } while (p < x.k);
}

}  // namespace lepton
