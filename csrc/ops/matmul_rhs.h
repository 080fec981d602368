// The right operand of a matrix multiplication: packed by `lower`, packed once by the factory
// (a constant that came as it is), or packed by every run.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "ops/gemm.h"
#include "ops/gemm_bf16_kernels.h"
#include "ops/op.h"

namespace lepton {

struct FreeBytes {
  void operator()(std::byte* p) const { std::free(p); }
};
// 64-byte aligned memory that a factory keeps.
using OwnedBytes = std::unique_ptr<std::byte[], FreeBytes>;
OwnedBytes allocate_bytes(size_t bytes);

struct MatMulRhs {
  bool at_run_time = true;
  bool transposed = false;
  Shape shape;                        // known unless at_run_time: batch..., k, n as stored
  const std::byte* packed = nullptr;  // constant: the packed matrices, one after another
  GemmS8Layout layout;                // of a packed 8-bit constant
  OwnedBytes owned;
};

// Shape batch..., k, n of an operand that `lower` packed, from the attributes packed, batch, k, n.
Status read_packed_shape(const StepDesc& step, Shape* shape);

// Bytes of `shape`'s packed matrices, and of one of them. Kernel: a gemm kernel's info.
template <typename Kernel>
Status packed_stack_size(const Kernel& kernel, const Shape& shape, bool transposed, size_t* one,
                         size_t* all) {
  const int64_t rows = shape[shape.rank - 2], columns = shape[shape.rank - 1];
  const int64_t k = transposed ? columns : rows, n = transposed ? rows : columns;
  LEPTON_RETURN_IF_ERROR(gemm_packed_size(kernel, k, n, one));
  const size_t count = static_cast<size_t>(shape.product(0, shape.rank - 2));
  if (*one != 0 && count > static_cast<size_t>(kMaxElements) / *one)
    return invalid_model("packed operand of shape " + shape.str() + " is too large");
  *all = *one * count;
  return {};
}

// The same for the operand that b is: a vector counts as one column.
Shape as_matrices(const Shape& b);

// Takes constant operand `index` that `lower` packed for `kernel`; checks it.
Status take_packed(const StepDesc& step, size_t index, const GemmF32KernelInfo& kernel,
                   MatMulRhs* rhs);
Status take_packed(const StepDesc& step, size_t index, const GemmBf16KernelInfo& kernel,
                   MatMulRhs* rhs);
Status take_packed(const StepDesc& step, size_t index, const GemmS8KernelInfo& kernel,
                   MatMulRhs* rhs);

// Splits packing of `matrices` × `panels` panels over threads: body(matrix, first, last).
template <typename F>
void pack_in_parallel(Parallel parallel, size_t matrices, size_t panels, size_t panel_bytes,
                      const F& body) {
  constexpr size_t kBytesPerChunk = 64 * 1024;
  if (matrices == 0 || panels == 0) return;
  const size_t step = std::max<size_t>(1, kBytesPerChunk / std::max<size_t>(panel_bytes, 1));
  const size_t ranges = ceil_div(panels, step);
  parallel.loop(static_cast<int64_t>(matrices * ranges), [&](int64_t chunk, int) {
    const size_t matrix = static_cast<size_t>(chunk) / ranges;
    const size_t first = static_cast<size_t>(chunk) % ranges * step;
    body(matrix, first, std::min(first + step, panels));
  });
}

}  // namespace lepton
