// A reduction as loops: dimensions of size 1 dropped, neighbours that are both kept or both reduced
// merged. Kept and reduced dimensions then alternate.
#pragma once

#include <cstdint>
#include <vector>

#include "core/shape.h"
#include "ops/op.h"

namespace lepton {

struct LoopNest {
  int rank = 0;
  int64_t dims[kMaxRank];
  int64_t strides[kMaxRank];

  int64_t count() const {
    int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= dims[d];
    return n;
  }
  // Offset of iteration i, row-major over dims.
  int64_t offset(int64_t i) const {
    if (rank == 1) return i * strides[0];
    int64_t total = 0;
    for (int d = rank - 1; d >= 0; --d) {
      total += i % dims[d] * strides[d];
      i /= dims[d];
    }
    return total;
  }
};

// Input viewed as kept × reduced × run, in elements:
//   columns: the run is kept (contiguous, `run` wide); each output row of `run` values reduces
//            `reduced` rows
//   rows:    the run is reduced
struct ReduceGeometry {
  bool columns = false;
  int64_t run = 1;
  LoopNest kept, reduced;        // without the run
  int64_t reduced_elements = 1;  // per output, run included
};

ReduceGeometry reduce_geometry(const Shape& shape, const std::vector<int>& axes);

// The axes of a reduction-like step: attribute `axes`, or input `input` when the step has it.
// Absent or empty: all, or none when noop. Axes are normalised; needs_value() as require_ints does.
Status read_axes(BindContext& context, const std::vector<int64_t>& attribute, bool has_input,
                 bool noop_with_empty_axes, std::vector<int>* axes);

// The shape after the reduction.
Shape reduced_shape(const Shape& shape, const std::vector<int>& axes, bool keepdims);

// [outer, axis, inner] around one axis.
struct AxisView {
  int64_t outer, size, inner;
};
inline AxisView view_axis(const Shape& s, int axis) {
  return {s.product(0, axis), s[axis], s.product(axis + 1, s.rank)};
}

}  // namespace lepton
