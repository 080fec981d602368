// What the packed sparse operands of gemm_sparse.h have in common: parts in whole cache lines, the
// first of which says how large the others are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/gemm.h"
#include "ops/op.h"

namespace lepton {

// Walks the parts of a blob.
class SparseBlob {
 public:
  explicit SparseBlob(const TensorInfo& blob)
      : data_(static_cast<const std::byte*>(blob.data)),
        size_(static_cast<size_t>(blob.shape.elements())) {}
  static bool is_one(const TensorInfo& blob) {
    return blob.constant && blob.dtype == DType::kU8 && blob.data != nullptr &&
           reinterpret_cast<uintptr_t>(blob.data) % kCacheLine == 0;
  }
  // `count` elements, and on to the next cache line; null when they are not there.
  template <typename T>
  const T* part(size_t count) {
    if (count > (size_ - at_) / sizeof(T)) return nullptr;
    const auto* const start = reinterpret_cast<const T*>(data_ + at_);
    at_ = std::min(size_, round_up(at_ + count * sizeof(T), kCacheLine));
    return start;
  }
  bool at_end() const { return at_ == size_; }

 private:
  const std::byte* data_;
  size_t size_, at_ = 0;
};

// Whether starts[panels + 1] begins at 0 and never falls.
inline bool are_starts(const uint32_t* starts, size_t panels) {
  for (size_t p = 0; p < panels; ++p)
    if (starts[p] > starts[p + 1]) return false;
  return starts[0] == 0;
}

// Rows of lhs of one turn over the panels: they stay in L1.
inline size_t sparse_rows_in_l1(size_t stride_bytes, size_t mr) {
  constexpr size_t kRowBytes = 32 * 1024;
  return std::max(mr, kRowBytes / std::max<size_t>(stride_bytes, 1) / mr * mr);
}

// Of `left` rows the next `rows`, or all where no more than a few would remain.
inline size_t sparse_rows(size_t left, size_t rows, size_t few) {
  return left <= rows + few ? left : rows;
}

// Walks a block in tiles of mr rows and `group` panels: select(first panel, last panel), then
// run(row, rows) for every tile of these panels in as many rows as stay in L1. The last tile has up
// to `few` rows more, so that no turn is made for them alone.
template <typename Block, typename Tile>
void for_each_sparse_tile(const Block& block, size_t stride_bytes, size_t mr, size_t few,
                          size_t group, Tile& tile) {
  const size_t turn = sparse_rows_in_l1(stride_bytes, mr);
  for (size_t row = 0, rows = 0; row < block.m; row += rows) {
    rows = sparse_rows(block.m - row, turn, few);
    for (size_t first = block.first; first < block.last; first += group) {
      tile.select(first, std::min(block.last, first + group));
      for (size_t i = 0, m = 0; i < rows; i += m) {
        m = sparse_rows(rows - i, mr, few);
        tile.run(row + i, m);
      }
    }
  }
}

}  // namespace lepton
