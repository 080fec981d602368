// Slice: one strided copy; a negative step is a negative stride.
#include "ops/movement.h"

namespace lepton {
namespace {

struct AxisRange {
  int64_t start, size, step;
};

// One axis as ONNX defines it: negative positions count from the end, then both ends are clamped.
AxisRange clamp_range(int64_t dim, int64_t start, int64_t end, int64_t step) {
  const int64_t lowest = step > 0 ? 0 : -1;  // what `end` may fall to
  const int64_t highest = step > 0 ? dim : dim - 1;
  step = clamp_index(step, -kMaxElements, kMaxElements);
  if (start < 0) start += dim;
  if (end < 0) end += dim;
  start = clamp_index(start, 0, highest);
  end = clamp_index(end, lowest, highest);
  const int64_t span = step > 0 ? end - start : start - end;
  const int64_t pace = step > 0 ? step : -step;
  return {start, dim > 0 && span > 0 ? (span + pace - 1) / pace : 0, step};
}

class SliceOp final : public Op {
 public:
  SliceOp(bool has_axes, bool has_steps, size_t element_size, Isa isa)
      : has_axes_(has_axes), has_steps_(has_steps), element_size_(element_size), isa_(isa) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    AxisRange ranges[kMaxRank];
    LEPTON_RETURN_IF_ERROR(read_ranges(context, from, ranges));
    const Strides src = strides_of(from);
    Shape to;
    bool whole = true;
    int64_t offset = 0;
    for (int i = 0; i < from.rank; ++i) {
      to.push_back(ranges[i].size);
      offset += ranges[i].size > 0 ? ranges[i].start * src[i] : 0;
      whole = whole && ranges[i].size == from[i] && (ranges[i].step == 1 || from[i] <= 1);
    }
    if (whole) return context.set_alias(0, 0, to);
    const Strides dst = strides_of(to);
    StridedCopy copy(element_size_, isa_);
    for (int i = 0; i < to.rank; ++i) {
      if (to[i] == 1) continue;  // its step may be huge
      copy.add_dim(to[i], src[i] * ranges[i].step, dst[i]);
    }
    copy.set_offsets(offset, 0);
    copy.prepare();
    return bind_copy(context, 0, 0, to, copy);
  }

 private:
  Status read_ranges(BindContext& context, const Shape& from, AxisRange* ranges) const {
    std::vector<int64_t> starts, ends, axis_list, steps;
    LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "Slice: starts", &starts));
    LEPTON_RETURN_IF_ERROR(require_ints(context, 2, "Slice: ends", &ends));
    if (has_axes_) {
      LEPTON_RETURN_IF_ERROR(require_ints(context, 3, "Slice: axes", &axis_list));
    } else {
      for (size_t i = 0; i < starts.size(); ++i) axis_list.push_back(static_cast<int64_t>(i));
    }
    if (has_steps_) {
      LEPTON_RETURN_IF_ERROR(require_ints(context, 4, "Slice: steps", &steps));
    } else {
      steps.assign(starts.size(), 1);
    }
    const size_t n = starts.size();
    if (ends.size() != n || axis_list.size() != n || steps.size() != n)
      return invalid_model("Slice: starts, ends, axes and steps differ in length");
    std::vector<int> axes;
    LEPTON_RETURN_IF_ERROR(normalize_axes(axis_list, from.rank, &axes));
    for (int i = 0; i < from.rank; ++i) ranges[i] = {0, from[i], 1};
    for (size_t i = 0; i < n; ++i) {
      if (steps[i] == 0) return invalid_model("Slice: a step is 0");
      ranges[axes[i]] = clamp_range(from[axes[i]], starts[i], ends[i], steps[i]);
    }
    return {};
  }

  bool has_axes_, has_steps_;
  size_t element_size_;
  Isa isa_;
};

}  // namespace

Status make_slice(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 3, 5));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  for (size_t i = 1; i < 5; ++i) LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, i));
  *op = std::make_unique<SliceOp>(desc.has_input(3), desc.has_input(4),
                                  size_of(desc.inputs[0].dtype), desc.isa);
  return {};
}

}  // namespace lepton
