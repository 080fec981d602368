// transpose: a 2-D matrix of elements of 1, 2, 4 or 8 bytes.
//
//   dst[j][i] = src[i][j]     i < rows, j < cols
//
// Rows of src are src_stride bytes apart, rows of dst dst_stride bytes (either may be negative);
// elements within a row are adjacent. No alignment is asked for, no padding is read or written, and
// src and dst do not overlap. rows and cols are at least 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct TransposeParams {
  size_t rows;
  size_t cols;
  const void* src;
  ptrdiff_t src_stride;
  void* dst;
  ptrdiff_t dst_stride;
};
using TransposeKernel = void (*)(const TransposeParams&);

}  // namespace lepton
