// Resize along any set of axes, in any layout.
//
// Nearest moves runs of bytes by index tables, one per axis. Linear and cubic are separable: for
// each row of the first resized axis, the rows of the input it needs are brought to float32 and
// resized along the inner axes, once each (a ring of as many rows as there are taps keeps them),
// and then blended. An axis with a contiguous run behind it (every axis but the last) is a weighted
// sum of whole runs; the last axis gathers.
#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/movement.h"
#include "ops/resize_plan.h"

namespace lepton {
namespace {

// Overwrites what lies outside the crop with the extrapolation value.
struct Extrapolation {
  std::vector<StridedCopy> slabs;
  void execute(const void* value, void* dst, const Parallel& parallel) const {
    for (const StridedCopy& slab : slabs) slab.run(value, dst, parallel);
  }
};

Extrapolation make_extrapolation(const Shape& to, const std::vector<AxisTaps>& taps,
                                 size_t element_size) {
  Extrapolation result;
  const Strides strides = strides_of(to);
  for (int axis = 0; axis < to.rank; ++axis) {
    for (size_t i = 0; i < taps[axis].outside.size();) {
      const int64_t first = taps[axis].outside[i];
      int64_t count = 0;  // neighbours go together
      while (i < taps[axis].outside.size() && taps[axis].outside[i] == first + count) ++i, ++count;
      StridedCopy slab(element_size, Isa::k_scalar);
      for (int d = 0; d < to.rank; ++d) slab.add_dim(d == axis ? count : to[d], 0, strides[d]);
      slab.set_offsets(0, first * strides[axis]);
      slab.prepare();
      result.slabs.push_back(slab);
    }
  }
  return result;
}

enum class AspectPolicy { kStretch, kNotLarger, kNotSmaller };

struct ResizeSpec {
  ResizeRule rule;
  AspectPolicy policy = AspectPolicy::kStretch;
  float extrapolation_value = 0.f;
  bool has_axes = false;
  std::vector<int64_t> axes;
  DType dtype = DType::kUndefined;
  const ResizeInfo* kernel = nullptr;
};

class ResizeOp final : public Op {
 public:
  explicit ResizeOp(ResizeSpec spec) : spec_(std::move(spec)) {}

  Status bind(BindContext& context) const override {
    const Shape from = context.input(0).shape;
    ResizeAxis axes[kMaxRank];
    LEPTON_RETURN_IF_ERROR(resolve_axes(context, from, axes));
    Shape to;
    for (int i = 0; i < from.rank; ++i) to.push_back(axes[i].out);
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    std::vector<AxisTaps> taps(static_cast<size_t>(from.rank));
    bool identity = true;
    for (int i = 0; i < from.rank; ++i) {
      if (axes[i].in == 0 && axes[i].out > 0) return invalid_input("Resize of an empty axis");
      LEPTON_RETURN_IF_ERROR(make_taps(spec_.rule, axes[i], &taps[i]));
      identity = identity && taps[i].identity;
    }
    if (identity) return context.set_alias(0, 0, to);
    LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    if (to.elements() == 0) return nothing_to_run(context);
    const Extrapolation outside = make_extrapolation(to, taps, size_of(spec_.dtype));
    if (spec_.rule.mode == ResizeMode::kNearest)
      bind_nearest(context, from, to, std::move(taps), outside);
    else
      bind_interpolation(context, from, to, std::move(taps), outside);
    return {};
  }

 private:
  Status resolve_axes(BindContext& context, const Shape& from, ResizeAxis* axes) const;
  Status read_floats(BindContext& context, int i, size_t count, std::vector<float>* values) const;
  Status apply_sizes(const std::vector<int64_t>& sizes, const std::vector<int>& places,
                     ResizeAxis* axes) const;
  void bind_nearest(BindContext& context, const Shape& from, const Shape& to,
                    std::vector<AxisTaps> taps, const Extrapolation& outside) const;
  void bind_interpolation(BindContext& context, const Shape& from, const Shape& to,
                          std::vector<AxisTaps> taps, const Extrapolation& outside) const;

  ResizeSpec spec_;
};

bool is_given(const BindContext& context, int i) {
  return i < context.num_inputs() && context.input(i).present &&
         context.input(i).shape.elements() > 0;
}

Status ResizeOp::read_floats(BindContext& context, int i, size_t count,
                             std::vector<float>* values) const {
  if (!context.require_value(i)) return BindContext::needs_value();
  const TensorInfo& info = context.input(i);
  if (info.shape.rank != 1 || static_cast<size_t>(info.shape[0]) != count)
    return invalid_model("Resize: input " + std::to_string(i) + " must hold " +
                         std::to_string(count) + " values");
  const float* data = static_cast<const float*>(info.data);
  values->assign(data, data + count);
  return {};
}

Status ResizeOp::resolve_axes(BindContext& context, const Shape& from, ResizeAxis* axes) const {
  std::vector<int64_t> list = spec_.axes;
  if (!spec_.has_axes)
    for (int i = 0; i < from.rank; ++i) list.push_back(i);
  std::vector<int> places;
  LEPTON_RETURN_IF_ERROR(normalize_axes(list, from.rank, &places));
  for (int i = 0; i < from.rank; ++i) axes[i].in = axes[i].out = from[i];
  if (spec_.rule.coordinates == CoordinateMode::kTfCropAndResize) {
    std::vector<float> roi;
    if (!is_given(context, 1)) return invalid_model("Resize: tf_crop_and_resize needs roi");
    LEPTON_RETURN_IF_ERROR(read_floats(context, 1, 2 * places.size(), &roi));
    for (size_t i = 0; i < places.size(); ++i) {
      axes[places[i]].roi_start = roi[i];
      axes[places[i]].roi_end = roi[i + places.size()];
    }
  }
  if (is_given(context, 3)) {
    std::vector<int64_t> sizes;
    LEPTON_RETURN_IF_ERROR(require_ints(context, 3, "Resize: sizes", &sizes));
    return apply_sizes(sizes, places, axes);
  }
  if (!is_given(context, 2)) {
    if (places.empty()) return {};
    return invalid_model("Resize: neither scales nor sizes");
  }
  std::vector<float> scales;
  LEPTON_RETURN_IF_ERROR(read_floats(context, 2, places.size(), &scales));
  for (size_t i = 0; i < places.size(); ++i) {
    ResizeAxis& axis = axes[places[i]];
    const float out = static_cast<float>(axis.in) * scales[i];
    if (!(scales[i] > 0) || !(out < static_cast<float>(kMaxElements)))
      return invalid_model("Resize: scale " + std::to_string(scales[i]));
    axis.scale = scales[i];
    axis.out = scales[i] == 1.f ? axis.in : static_cast<int64_t>(out);
  }
  return {};
}

Status ResizeOp::apply_sizes(const std::vector<int64_t>& sizes, const std::vector<int>& places,
                             ResizeAxis* axes) const {
  if (sizes.size() != places.size()) return invalid_model("Resize: one size per axis is needed");
  for (int64_t s : sizes)
    if (s < 0 || s > kMaxElements) return invalid_model("Resize: size " + std::to_string(s));
  float common = 0.f;
  for (size_t i = 0; i < places.size(); ++i) {
    ResizeAxis& axis = axes[places[i]];
    axis.out = sizes[i];
    axis.scale = static_cast<float>(sizes[i]) / static_cast<float>(std::max<int64_t>(1, axis.in));
    const bool smaller = axis.scale < common;
    if (i == 0 || smaller == (spec_.policy == AspectPolicy::kNotLarger)) common = axis.scale;
  }
  if (spec_.policy == AspectPolicy::kStretch) return {};
  for (int place : places) {
    ResizeAxis& axis = axes[place];
    const float out = std::floor(static_cast<float>(axis.in) * common + 0.5f);
    if (!(out < static_cast<float>(kMaxElements))) return invalid_model("Resize: size too large");
    axis.scale = common;
    axis.out = static_cast<int64_t>(out);
  }
  return {};
}

void ResizeOp::bind_nearest(BindContext& context, const Shape& from, const Shape& to,
                            std::vector<AxisTaps> taps, const Extrapolation& outside) const {
  std::vector<ResizeLevel> levels;
  int64_t run = 1;
  make_resize_levels(from, to, std::move(taps), &levels, &run);
  NearestPlan plan(std::move(levels), run * static_cast<int64_t>(size_of(spec_.dtype)));
  // Only float32 extrapolates (checked in the factory).
  context.set_run([plan = std::move(plan), outside,
                   value = spec_.extrapolation_value](const RunArgs& args) -> Status {
    plan.execute(args.input<char>(0), args.output<char>(0), args.parallel);
    outside.execute(&value, args.out[0], args.parallel);
    return {};
  });
}

void ResizeOp::bind_interpolation(BindContext& context, const Shape& from, const Shape& to,
                                  std::vector<AxisTaps> taps, const Extrapolation& outside) const {
  std::vector<ResizeLevel> levels;
  int64_t run = 1;
  make_resize_levels(from, to, std::move(taps), &levels, &run);
  InterpolationPlan plan(std::move(levels), run, spec_.dtype, spec_.kernel);
  const size_t per_thread =
      thread_share(static_cast<size_t>(plan.scratch_elements()) * sizeof(float));
  context.set_scratch(per_thread * static_cast<size_t>(context.threads()));
  context.set_run([plan = std::move(plan), outside, per_thread,
                   value = spec_.extrapolation_value](const RunArgs& args) -> Status {
    args.parallel.loop(plan.tasks(), [&](int64_t task, int thread) {
      plan.run_task(
          task, args.input<char>(0), args.output<char>(0),
          reinterpret_cast<float*>(args.scratch + per_thread * static_cast<size_t>(thread)));
    });
    outside.execute(&value, args.out[0], args.parallel);
    return {};
  });
}

Status read_rule(const Attrs& attrs, ResizeSpec* spec) {
  const auto pick = [](std::string_view name, std::initializer_list<std::string_view> names) {
    int i = 0;
    for (std::string_view n : names) {
      if (n == name) return i;
      ++i;
    }
    return -1;
  };
  const int mode = pick(attrs.s("mode", "nearest"), {"nearest", "linear", "cubic"});
  const int coordinates = pick(attrs.s("coordinate_transformation_mode", "half_pixel"),
                               {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",
                                "asymmetric", "align_corners", "tf_crop_and_resize"});
  const int nearest = pick(attrs.s("nearest_mode", "round_prefer_floor"),
                           {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
  const int policy = pick(attrs.s("keep_aspect_ratio_policy", "stretch"),
                          {"stretch", "not_larger", "not_smaller"});
  if (mode < 0 || coordinates < 0 || nearest < 0 || policy < 0)
    return invalid_model("Resize: unknown mode");
  spec->rule.mode = static_cast<ResizeMode>(mode);
  spec->rule.coordinates = static_cast<CoordinateMode>(coordinates);
  spec->rule.nearest = static_cast<NearestMode>(nearest);
  spec->rule.cubic_coeff_a = attrs.f("cubic_coeff_a", -0.75f);
  spec->rule.exclude_outside = attrs.i("exclude_outside") != 0;
  spec->policy = static_cast<AspectPolicy>(policy);
  spec->extrapolation_value = attrs.f("extrapolation_value", 0.f);
  const Attrs::Ints axes = attrs.ints("axes");
  spec->has_axes = attrs.has("axes");
  spec->axes.assign(axes.data, axes.data + axes.size);
  return {};
}

}  // namespace

Status make_resize(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 4));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 3));
  ResizeSpec spec;
  LEPTON_RETURN_IF_ERROR(read_rule(*desc.attrs, &spec));
  spec.dtype = desc.inputs[0].dtype;
  spec.kernel = best_resize_kernel(desc.isa);
  if (desc.attrs->i("antialias") != 0) return unsupported("Resize with antialias");
  const bool crop = spec.rule.coordinates == CoordinateMode::kTfCropAndResize;
  if (desc.has_input(2) && desc.inputs[2].dtype != DType::kF32)
    return invalid_model("Resize: scales must be float32");
  if (crop && (!desc.has_input(1) || desc.inputs[1].dtype != DType::kF32))
    return unsupported("Resize: roi that is not float32");
  const bool is_f32 = spec.dtype == DType::kF32;
  const bool interpolates = spec.rule.mode != ResizeMode::kNearest;
  if (crop && !is_f32) return unsupported("Resize: tf_crop_and_resize of integers");
  if (interpolates && !is_f32 && spec.dtype != DType::kU8 && spec.dtype != DType::kS8)
    return unsupported("Resize: interpolation of " + std::string(name_of(spec.dtype)));
  if (spec.kernel == nullptr) return internal_error("Resize: no kernel");
  *op = std::make_unique<ResizeOp>(std::move(spec));
  return {};
}

}  // namespace lepton
