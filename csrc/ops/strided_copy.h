// The one engine under the operators that move elements: Transpose, Slice, Expand, Tile, Concat,
// Split, Pad, DepthToSpace ...
//
//   dst[sum of i_d · dst_d] = src[sum of i_d · src_d]    for every index i within the sizes
//
// Strides may be zero (src: broadcast) or negative. Distinct indices address distinct elements of
// dst. prepare() reduces the index space: dimensions that are adjacent in both tensors merge, a
// contiguous inner run becomes the unit that moves, and a pair of dimensions contiguous on one side
// each becomes a blocked 2-D transpose. All of it happens at bind; run() only moves.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/isa.h"
#include "core/shape.h"
#include "core/thread_pool.h"
#include "ops/transpose.h"

namespace lepton {

// The best kernel within `max` for elements of 1, 2, 4 or 8 bytes.
TransposeKernel find_transpose_kernel(int64_t element_size, Isa max);

class StridedCopy {
 public:
  static constexpr int kMaxDims = 2 * kMaxRank;

  StridedCopy() = default;
  StridedCopy(size_t element_size, Isa isa)
      : unit_(static_cast<int64_t>(element_size)), isa_(isa) {}

  // Strides and offsets are in elements. Dimensions may come in any order, at most kMaxDims of
  // them.
  void add_dim(int64_t size, int64_t src_stride, int64_t dst_stride);
  void set_offsets(int64_t src, int64_t dst);
  // Call once, after the last dimension.
  void prepare();

  void run(const void* src, void* dst, const Parallel& parallel) const;

 private:
  struct Dim {
    int64_t size, src, dst;  // strides in bytes
  };
  struct Block;
  using BlockCopy = void (*)(const Block&);

  void sort_and_merge();
  void find_transpose();
  void choose_block_copy();
  void plan_tasks();
  void run_task(int64_t task, const char* src, char* dst) const;

  template <size_t kSize>
  static void copy_block(const Block& b);
  static void copy_runs(const Block& b);
  static void transpose_block(const Block& b);

  Dim dims_[kMaxDims + 2] = {};
  int rank_ = 0;
  int64_t unit_ = 0;  // bytes that move together
  int64_t src_offset_ = 0, dst_offset_ = 0;
  bool empty_ = false;
  Isa isa_ = Isa::k_scalar;
  TransposeKernel transpose_ = nullptr;
  BlockCopy block_copy_ = nullptr;
  // A task: rows_per_task_ indices of the outer dimensions by inner_per_task_ of the innermost.
  int64_t rows_ = 0, rows_per_task_ = 0, inner_per_task_ = 0, inner_parts_ = 0, tasks_ = 0;
};

}  // namespace lepton
