// reduce: float32 reductions of rows and of columns.
//
//   row:      the reduction of x[i], i < n
//   columns:  acc[j] = reduction of acc[j] and x[i · stride + j]     i < rows, j < width <= 256
//
// Sums are of x, |x|, x² or exp(x − shift). They run in float32 over blocks of at most 512 values
// (of columns: 128 rows), in an order that depends on n alone, and the blocks add up in float64; so
// results do not depend on the thread count and the error does not grow with n. shift: one value
// for a row, one for each column; ignored by the others (may be null). Min and Max pass NaN on; an
// empty row gives the identity (0, 1, ±infinity). acc starts as the identity of the op.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

enum class Isa : uint8_t;

enum class ReduceOp : uint8_t { kSum, kSumAbs, kSumSquare, kSumExp, kMax, kMin, kProd };

using ReduceRowFn = double (*)(const float* x, size_t n, float shift);
using ReduceColumnsFn = void (*)(const float* x, size_t rows, size_t stride, size_t width,
                                 const float* shift, double* acc);

constexpr size_t kReduceWidth = 256;

struct ReduceKernel {
  ReduceOp op;
  ReduceRowFn row;
  ReduceColumnsFn columns;
};
struct ReduceKernels {
  const ReduceKernel* list;
  size_t size;
};

#define LEPTON_REDUCE(name, isa) ReduceKernels name();
#include "ops/reduce_kernels.inc"
#undef LEPTON_REDUCE

// The best implementation within the cap. The scalar list is complete.
ReduceKernel find_reduce(ReduceOp op, Isa max);

}  // namespace lepton
