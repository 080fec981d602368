// Checks and small parts that the data-movement operators share.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ops/op.h"
#include "ops/strided_copy.h"

namespace lepton {

// Factory check: inputs [0, required) present, none at or beyond `at_most`, every operand of a
// dtype the runtime stores, output 0 present (unless the operator copes without).
Status check_operands(const StepDesc& desc, size_t required, size_t at_most,
                      bool any_output_may_be_absent = false);
// Factory check: output `output` (when present) has the dtype of input `input`.
Status check_same_dtype(const StepDesc& desc, size_t input, size_t output);
// Factory check: input `input` (when present) is int32 or int64.
Status check_index_dtype(const StepDesc& desc, size_t input);

// An axis in [-rank, rank) as one in [0, rank).
Status normalize_axis(int64_t axis, int rank, int* normalized);
// The same for a list, which must hold no axis twice.
Status normalize_axes(const std::vector<int64_t>& axes, int rank, std::vector<int>* normalized);

// Contents of an int32 or int64 tensor of rank 0 or 1 whose data is known.
Status read_ints(const TensorInfo& info, const char* what, std::vector<int64_t>* values);
// Makes input i available at bind and reads it; needs_value() when it is not known yet.
Status require_ints(BindContext& context, int i, const char* what, std::vector<int64_t>* values);
// The same for a tensor of exactly one element.
Status require_int(BindContext& context, int i, const char* what, int64_t* value);

// Error unless the shape is one a tensor may have.
Status check_shape(const Shape& shape);

struct Strides {
  int64_t dims[kMaxRank] = {};
  int64_t operator[](int i) const { return dims[i]; }
  int64_t& operator[](int i) { return dims[i]; }
};
// Row-major strides in elements.
Strides strides_of(const Shape& shape);

// Output `output` is input `input` moved by `copy` (prepared).
Status bind_copy(BindContext& context, int output, int input, const Shape& shape, StridedCopy copy);

// For outputs without elements: a closure all the same, so that they can be known at bind.
Status nothing_to_run(BindContext& context);

// value · factor into *value; false when the product leaves [0, kMaxElements].
inline bool multiply_within(int64_t factor, int64_t* value) {
  if (factor < 0 || *value < 0) return false;
  if (factor != 0 && *value > kMaxElements / factor) return false;
  *value *= factor;
  return true;
}

inline int64_t clamp_index(int64_t v, int64_t lo, int64_t hi) {
  return v < lo ? lo : v > hi ? hi : v;
}

// Calls f with a zero of the unsigned type of this element size.
template <typename F>
auto with_element_type(size_t element_size, const F& f) {
  switch (element_size) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

// Splits `total` items into tasks of about `grain` and calls body(begin, end).
template <typename F>
void parallel_ranges(const Parallel& parallel, int64_t total, int64_t grain, const F& body) {
  if (grain < 1) grain = 1;
  const int64_t tasks = (total + grain - 1) / grain;
  parallel.loop(tasks, [&](int64_t task, int) {
    const int64_t begin = task * grain;
    body(begin, begin + grain < total ? begin + grain : total);
  });
}

}  // namespace lepton
