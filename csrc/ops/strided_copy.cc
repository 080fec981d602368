#include "ops/strided_copy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "ops/kernel_list.h"

namespace lepton {

#define LEPTON_TRANSPOSE(name, isa, size) void name(const TransposeParams&);
#include "ops/transpose_kernels.inc"
#undef LEPTON_TRANSPOSE

namespace {

// A task should be long enough to pay for its start and short enough to balance.
constexpr int64_t kTaskBytes = 128 << 10;

struct TransposeInfo {
  std::string_view name;
  Isa isa;
  TransposeKernel run;
  int64_t element_size;
};
const TransposeInfo kTransposeInfos[] = {
#define LEPTON_TRANSPOSE(name, isa, size) \
  {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name), size},
#include "ops/transpose_kernels.inc"
#undef LEPTON_TRANSPOSE
};

}  // namespace

TransposeKernel find_transpose_kernel(int64_t element_size, Isa max) {
  for (const TransposeInfo& info : kTransposeInfos)
    if (info.element_size == element_size && is_within(info.isa, max) &&
        KernelList<TransposeInfo>::is_runnable(info))
      return info.run;
  return nullptr;
}

struct StridedCopy::Block {
  const char* src;
  char* dst;
  int64_t rows, src_row, dst_row;
  int64_t cols, src_col, dst_col;
  int64_t unit;
  TransposeKernel transpose;
};

void StridedCopy::add_dim(int64_t size, int64_t src_stride, int64_t dst_stride) {
  if (size == 0) empty_ = true;
  if (size <= 1 || rank_ == kMaxDims) return;
  dims_[rank_++] = {size, src_stride * unit_, dst_stride * unit_};
}

void StridedCopy::set_offsets(int64_t src, int64_t dst) {
  src_offset_ = src * unit_;
  dst_offset_ = dst * unit_;
}

void StridedCopy::prepare() {
  if (empty_) return;
  sort_and_merge();
  if (rank_ > 0 && dims_[rank_ - 1].src == unit_ && dims_[rank_ - 1].dst == unit_)
    unit_ *= dims_[--rank_].size;
  find_transpose();
  while (rank_ < 2) {
    std::copy_backward(dims_, dims_ + rank_, dims_ + rank_ + 1);
    dims_[0] = {1, 0, 0};
    ++rank_;
  }
  choose_block_copy();
  plan_tasks();
}

void StridedCopy::sort_and_merge() {
  std::stable_sort(dims_, dims_ + rank_,
                   [](const Dim& a, const Dim& b) { return std::abs(a.dst) > std::abs(b.dst); });
  int kept = 0;
  for (int i = 0; i < rank_; ++i) {
    const Dim d = dims_[i];
    Dim* outer = kept > 0 ? &dims_[kept - 1] : nullptr;
    if (outer != nullptr && outer->src == d.src * d.size && outer->dst == d.dst * d.size)
      *outer = {outer->size * d.size, d.src, d.dst};
    else
      dims_[kept++] = d;
  }
  rank_ = kept;
}

// The innermost dimension of dst is last now; its partner is the one contiguous in src.
void StridedCopy::find_transpose() {
  if (rank_ < 2 || dims_[rank_ - 1].dst != unit_) return;
  const TransposeKernel kernel = find_transpose_kernel(unit_, isa_);
  if (kernel == nullptr) return;
  for (int i = rank_ - 2; i >= 0; --i) {
    if (dims_[i].src != unit_) continue;
    std::rotate(dims_ + i, dims_ + i + 1, dims_ + rank_ - 1);
    transpose_ = kernel;
    return;
  }
}

void StridedCopy::choose_block_copy() {
  if (transpose_ != nullptr) {
    block_copy_ = transpose_block;
    return;
  }
  switch (unit_) {
    case 1: block_copy_ = copy_block<1>; break;
    case 2: block_copy_ = copy_block<2>; break;
    case 4: block_copy_ = copy_block<4>; break;
    case 8: block_copy_ = copy_block<8>; break;
    case 16: block_copy_ = copy_block<16>; break;
    default: block_copy_ = copy_runs; break;
  }
}

void StridedCopy::plan_tasks() {
  rows_ = 1;
  for (int i = 0; i < rank_ - 1; ++i) rows_ *= dims_[i].size;
  const int64_t cols = dims_[rank_ - 1].size;
  const int64_t row_bytes = cols * unit_;
  const int64_t tile = transpose_ != nullptr ? 64 : 1;  // narrower tasks would waste cache lines
  rows_per_task_ = std::min(rows_, std::max(tile, kTaskBytes / row_bytes));
  inner_per_task_ = std::min(cols, std::max(tile, kTaskBytes / (unit_ * rows_per_task_)));
  if (rows_ * row_bytes <= 2 * kTaskBytes) {
    rows_per_task_ = rows_;
    inner_per_task_ = cols;
  }
  inner_parts_ = (cols + inner_per_task_ - 1) / inner_per_task_;
  tasks_ = (rows_ + rows_per_task_ - 1) / rows_per_task_ * inner_parts_;
}

namespace {

// Repeats `size` bytes over `total` (a multiple), twice as many with every step.
void fill_run(const char* src, size_t size, char* dst, int64_t total) {
  std::memcpy(dst, src, size);
  int64_t done = static_cast<int64_t>(size);
  while (done < total) {
    const int64_t step = std::min(std::min(done, int64_t{4096}), total - done);
    std::memcpy(dst + done, dst, static_cast<size_t>(step));
    done += step;
  }
}

}  // namespace

template <size_t kSize>
void StridedCopy::copy_block(const Block& b) {
  constexpr int64_t size = kSize;
  for (int64_t i = 0; i < b.rows; ++i) {
    const char* src = b.src + i * b.src_row;
    char* dst = b.dst + i * b.dst_row;
    if (b.dst_col == size && b.src_col == 0) {
      fill_run(src, kSize, dst, b.cols * size);
    } else if (b.dst_col == size) {
      for (int64_t j = 0; j < b.cols; ++j) std::memcpy(dst + j * size, src + j * b.src_col, kSize);
    } else {
      for (int64_t j = 0; j < b.cols; ++j)
        std::memcpy(dst + j * b.dst_col, src + j * b.src_col, kSize);
    }
  }
}

void StridedCopy::copy_runs(const Block& b) {
  for (int64_t i = 0; i < b.rows; ++i)
    for (int64_t j = 0; j < b.cols; ++j)
      std::memcpy(b.dst + i * b.dst_row + j * b.dst_col, b.src + i * b.src_row + j * b.src_col,
                  static_cast<size_t>(b.unit));
}

void StridedCopy::transpose_block(const Block& b) {
  TransposeParams p;
  p.rows = static_cast<size_t>(b.cols);
  p.cols = static_cast<size_t>(b.rows);
  p.src = b.src;
  p.src_stride = static_cast<ptrdiff_t>(b.src_col);
  p.dst = b.dst;
  p.dst_stride = static_cast<ptrdiff_t>(b.dst_row);
  b.transpose(p);
}

void StridedCopy::run(const void* src, void* dst, const Parallel& parallel) const {
  if (empty_) return;
  const char* from = static_cast<const char*>(src) + src_offset_;
  char* to = static_cast<char*>(dst) + dst_offset_;
  if (rows_ == 1 && dims_[rank_ - 1].size == 1) {
    const int64_t chunks = (unit_ + kTaskBytes - 1) / kTaskBytes;
    parallel.loop(chunks, [&](int64_t chunk, int) {
      const int64_t begin = chunk * kTaskBytes;
      std::memcpy(to + begin, from + begin,
                  static_cast<size_t>(std::min(kTaskBytes, unit_ - begin)));
    });
    return;
  }
  parallel.loop(tasks_, [&](int64_t task, int) { run_task(task, from, to); });
}

void StridedCopy::run_task(int64_t task, const char* src, char* dst) const {
  const Dim& inner = dims_[rank_ - 1];
  const int64_t first_col = task % inner_parts_ * inner_per_task_;
  const int64_t first_row = task / inner_parts_ * rows_per_task_;
  int64_t rows = std::min(rows_per_task_, rows_ - first_row);
  int64_t index[kMaxDims + 2];
  src += first_col * inner.src;
  dst += first_col * inner.dst;
  int64_t rest = first_row;
  for (int d = rank_ - 2; d >= 0; --d) {
    index[d] = rest % dims_[d].size;
    rest /= dims_[d].size;
    src += index[d] * dims_[d].src;
    dst += index[d] * dims_[d].dst;
  }
  const Dim& outer = dims_[rank_ - 2];
  Block b{src,       dst,       0,
          outer.src, outer.dst, std::min(inner_per_task_, inner.size - first_col),
          inner.src, inner.dst, unit_,
          transpose_};
  while (rows > 0) {
    b.rows = std::min(rows, outer.size - index[rank_ - 2]);
    block_copy_(b);
    rows -= b.rows;
    // Rewind this dimension and carry into the ones outside it.
    b.src -= index[rank_ - 2] * outer.src;
    b.dst -= index[rank_ - 2] * outer.dst;
    index[rank_ - 2] = 0;
    for (int d = rank_ - 3; d >= 0; --d) {
      b.src += dims_[d].src;
      b.dst += dims_[d].dst;
      if (++index[d] < dims_[d].size) break;
      b.src -= dims_[d].size * dims_[d].src;
      b.dst -= dims_[d].size * dims_[d].dst;
      index[d] = 0;
    }
  }
}

}  // namespace lepton
