// The shape rule of matrix multiplication, shared by the float and the integer operators.
#pragma once

#include <string_view>

#include "core/shape.h"
#include "core/status.h"

namespace lepton {

// A product of stacks of matrices: for every batch index, dst[m][n] = a[m][k] · b[k][n].
struct MatMulShape {
  size_t m = 0, k = 0, n = 0;
  Shape output;  // ONNX MatMul's: 1-D operands lose their added dimension again
  // Broadcast batch dimensions, and how many matrices a step along each moves in a and in b. Where
  // b is a single matrix, the batches of a are rows: `batch` is then empty.
  Shape batch;
  size_t a_step[kMaxRank] = {};
  size_t b_step[kMaxRank] = {};
  size_t b_matrices = 1;
  bool has_columns = true;  // the output ends in n; not so where b is 1-D

  size_t batches() const { return static_cast<size_t>(batch.elements()); }
  size_t rows() const { return batches() * m; }  // of all products together
  // Which matrix of a and which of b batch `i` multiplies.
  void locate(size_t i, size_t* a, size_t* b) const;
};

// transposed_a, transposed_b: the last two dimensions are exchanged before multiplying.
Status matmul_shape(std::string_view step, const Shape& a, bool transposed_a, const Shape& b,
                    bool transposed_b, MatMulShape* shape);

// How an operand that broadcasts to the output (one way) is read, row by row of the [rows][n] view.
struct RowBroadcast {
  Shape lead;  // output dimensions that index rows
  size_t step[kMaxRank] = {};
  size_t column_step = 0;
  // Rows lie row_stride apart and columns side by side: readable in place.
  bool direct = false;
  size_t row_stride = 0;

  size_t offset(size_t row) const;
  // Writes rows [row, row + rows) × columns [first, last) to dst[rows][n], element by element.
  template <typename T, typename F>
  void expand(const T* operand, size_t row, size_t rows, size_t first, size_t last, size_t n,
              T* dst, const F& convert) const {
    for (size_t i = 0; i < rows; ++i) {
      const T* const from = operand + offset(row + i);
      for (size_t j = first; j < last; ++j) dst[i * n + j] = convert(from[j * column_step]);
    }
  }
};
Status row_broadcast(std::string_view step, const Shape& operand, const MatMulShape& shape,
                     RowBroadcast* broadcast);

}  // namespace lepton
