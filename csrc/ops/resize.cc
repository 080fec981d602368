// Resize along any set of axes, in any layout.
//
// Nearest moves runs of bytes by index tables, one per axis. Linear and cubic are separable: for
// each row of the first resized axis, the rows of the input it needs are brought to float32 and
// resized along the inner axes, once each (a ring of as many rows as there are taps keeps them),
// and then blended. An axis with a contiguous run behind it (every axis but the last) is a weighted
// sum of whole runs; the last axis gathers.
#include "ops/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/kernel_list.h"
#include "ops/movement.h"
#include "ops/resize_taps.h"

namespace lepton {

#define LEPTON_RESIZE(blend, gather, isa) \
  void blend(const ResizeBlendParams&);   \
  void gather(const ResizeGatherParams&);
#include "ops/resize_kernels.inc"
#undef LEPTON_RESIZE

namespace {

struct ResizeInfo {
  std::string_view name;
  Isa isa;
  ResizeBlendKernel run;
  ResizeGatherKernel gather;
};
const ResizeInfo kResizeInfos[] = {
#define LEPTON_RESIZE(blend, gather, isa) \
  {#blend, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, blend), LEPTON_KERNEL_POINTER(isa, gather)},
#include "ops/resize_kernels.inc"
#undef LEPTON_RESIZE
};
const KernelList<ResizeInfo> kResizeKernels{kResizeInfos,
                                            sizeof kResizeInfos / sizeof kResizeInfos[0]};

constexpr int64_t kTaskElements = 16 << 10;

// One axis as the loops see it: [.., in or out, inner].
struct Level {
  int64_t in = 1, out = 1, inner = 1;
  AxisTaps taps;
};

// Neighbouring axes that keep their size become one; a trailing one is left out, as `run` elements.
void make_levels(const Shape& from, const Shape& to, std::vector<AxisTaps> taps,
                 std::vector<Level>* levels, int64_t* run) {
  for (int i = 0; i < from.rank; ++i) {
    if (taps[i].identity && !levels->empty() && levels->back().taps.identity) {
      levels->back().in *= from[i];
      levels->back().out *= from[i];
    } else {
      levels->push_back({from[i], to[i], 1, std::move(taps[i])});
    }
  }
  *run = 1;
  if (!levels->empty() && levels->back().taps.identity) {
    *run = levels->back().in;
    levels->pop_back();
  }
}

// Nearest: levels of index tables over runs of bytes.
struct NearestPlan {
  std::vector<Level> levels;
  int64_t run = 1;   // bytes
  int64_t rows = 1;  // outputs of all levels but the last

  // Input offset in bytes of row r of all levels but the last.
  int64_t row_offset(int64_t r) const {
    int64_t offset = 0, stride = run * levels.back().in;
    for (int i = static_cast<int>(levels.size()) - 2; i >= 0; --i) {
      const Level& level = levels[i];
      const int64_t o = r % level.out;
      offset += (level.taps.identity ? o : level.taps.index[o]) * stride;
      r /= level.out;
      stride *= level.in;
    }
    return offset;
  }

  template <int64_t kRun>
  void copy_row(const char* src, char* dst) const {
    const Level& last = levels.back();
    const int64_t bytes = kRun > 0 ? kRun : run;
    for (int64_t o = 0; o < last.out; ++o)
      std::memcpy(dst + o * bytes, src + last.taps.index[o] * bytes, static_cast<size_t>(bytes));
  }

  void copy_row(const char* src, char* dst) const {
    switch (run) {
      case 1: copy_row<1>(src, dst); break;
      case 2: copy_row<2>(src, dst); break;
      case 4: copy_row<4>(src, dst); break;
      case 8: copy_row<8>(src, dst); break;
      default: copy_row<0>(src, dst); break;
    }
  }

  void execute(const char* src, char* dst, const Parallel& parallel) const {
    const int64_t row_bytes = levels.back().out * run;
    parallel_ranges(parallel, rows, 8 * kTaskElements / row_bytes, [&](int64_t r, int64_t end) {
      int64_t previous = -1;
      for (; r < end; ++r) {
        const int64_t offset = row_offset(r);
        char* row = dst + r * row_bytes;
        if (offset == previous) {
          std::memcpy(row, row - row_bytes, static_cast<size_t>(row_bytes));
        } else {
          copy_row(src + offset, row);
        }
        previous = offset;
      }
    });
  }
};

// Elements as float32 and back. Back: towards zero, as casts do, within the type's range.
template <typename T>
void to_float(const void* src, int64_t n, float* dst) {
  const T* s = static_cast<const T*>(src);
  for (int64_t i = 0; i < n; ++i) dst[i] = static_cast<float>(s[i]);
}
template <typename T>
void from_float(const float* src, int64_t n, void* dst) {
  constexpr float lo = std::is_signed_v<T> ? -128.f : 0.f, hi = std::is_signed_v<T> ? 127.f : 255.f;
  T* d = static_cast<T*>(dst);
  for (int64_t i = 0; i < n; ++i)
    d[i] = static_cast<T>(static_cast<int>(!(src[i] > lo) ? lo : src[i] < hi ? src[i] : hi));
}
using ToFloat = void (*)(const void*, int64_t, float*);
using FromFloat = void (*)(const float*, int64_t, void*);

// Linear and cubic: outer · [vertical level] · slab, where the slab's own levels are resized row by
// row before the vertical level blends them.
struct InterpolationPlan {
  const ResizeInfo* kernel = nullptr;
  int64_t element_size = 4;
  ToFloat to_float = nullptr;  // null for float32
  FromFloat from_float = nullptr;
  int64_t outer = 1;
  Level vertical;             // identity: rows pass through
  std::vector<Level> stages;  // of the slab
  int64_t slab_in = 1, slab_out = 1;
  int64_t stage_elements = 0;  // largest slab on the way
  int64_t rows_per_task = 1;

  int64_t vertical_taps() const { return vertical.taps.identity ? 1 : vertical.taps.taps; }
  // Float rows one thread keeps: the ring, two stages in progress, one result to convert.
  int64_t ring_elements() const { return round_up_elements(slab_out); }
  int64_t scratch_elements() const {
    return vertical_taps() * ring_elements() + 2 * round_up_elements(stage_elements) +
           ring_elements();
  }
  static int64_t round_up_elements(int64_t n) { return (n + 15) / 16 * 16; }

  void apply_stage(const Level& level, int64_t pre, const float* src, float* dst) const;
  void make_row(const char* src, float* dst, float* work) const;
  void run_task(int64_t task, const char* src, char* dst, float* scratch) const;
};

// src [pre][in][inner] → dst [pre][out][inner].
void InterpolationPlan::apply_stage(const Level& level, int64_t pre, const float* src,
                                    float* dst) const {
  const AxisTaps& taps = level.taps;
  const int64_t inner = level.inner;
  for (int64_t i = 0; i < pre; ++i, src += level.in * inner, dst += level.out * inner) {
    if (inner == 1) {
      kernel->gather({static_cast<size_t>(level.out), static_cast<size_t>(taps.taps),
                      static_cast<size_t>(level.out), taps.index.data(), taps.weight.data(), src,
                      dst});
      continue;
    }
    for (int64_t o = 0; o < level.out; ++o) {
      const float* rows[4];
      float weights[4];
      for (int t = 0; t < taps.taps; ++t) {
        rows[t] = src + taps.index[t * level.out + o] * inner;
        weights[t] = taps.weight[t * level.out + o];
      }
      kernel->run({static_cast<size_t>(inner), static_cast<size_t>(taps.taps), rows, weights,
                   dst + o * inner});
    }
  }
}

// One slab of the input, in float32, through all stages. work: two slabs of stage_elements.
void InterpolationPlan::make_row(const char* src, float* dst, float* work) const {
  float* buffers[2] = {work, work + round_up_elements(stage_elements)};
  const float* current = reinterpret_cast<const float*>(src);
  int next = 0;
  if (to_float != nullptr) {
    float* converted = stages.empty() ? dst : buffers[next];
    to_float(src, slab_in, converted);
    current = converted;
    next = 1 - next;
  } else if (stages.empty()) {
    std::memcpy(dst, src, static_cast<size_t>(slab_in) * sizeof(float));
  }
  int64_t pre = 1;
  for (size_t s = 0; s < stages.size(); ++s) {
    float* to = s + 1 == stages.size() ? dst : buffers[next];
    const Level& level = stages[s];
    if (level.taps.identity) {
      pre *= level.in;
      continue;
    }
    apply_stage(level, pre, current, to);
    pre *= level.out;
    current = to;
    next = 1 - next;
  }
}

void InterpolationPlan::run_task(int64_t task, const char* src, char* dst, float* scratch) const {
  const int64_t tasks_per_outer = (vertical.out + rows_per_task - 1) / rows_per_task;
  const int64_t first = task % tasks_per_outer * rows_per_task;
  const int64_t last = std::min(first + rows_per_task, vertical.out);
  src += task / tasks_per_outer * vertical.in * slab_in * element_size;
  dst += task / tasks_per_outer * vertical.out * slab_out * element_size;
  const int64_t taps = vertical_taps();
  float* work = scratch + taps * ring_elements();
  float* result = work + 2 * round_up_elements(stage_elements);
  int64_t in_ring[4] = {-1, -1, -1, -1};
  for (int64_t o = first; o < last; ++o) {
    const float* rows[4];
    float weights[4];
    char* out_row = dst + o * slab_out * element_size;
    float* out = from_float != nullptr ? result : reinterpret_cast<float*>(out_row);
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t row = vertical.taps.identity ? o : vertical.taps.index[t * vertical.out + o];
      const char* from = src + row * slab_in * element_size;
      weights[t] = vertical.taps.identity ? 1.f : vertical.taps.weight[t * vertical.out + o];
      if (vertical.taps.identity) {
        make_row(from, out, work);
      } else if (stages.empty() && to_float == nullptr) {
        rows[t] = reinterpret_cast<const float*>(from);
      } else {
        float* slot = scratch + row % taps * ring_elements();
        if (in_ring[row % taps] != row) make_row(from, slot, work);
        in_ring[row % taps] = row;
        rows[t] = slot;
      }
    }
    if (!vertical.taps.identity)
      kernel->run({static_cast<size_t>(slab_out), static_cast<size_t>(taps), rows, weights, out});
    if (from_float != nullptr) from_float(result, slab_out, out_row);
  }
}

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
  NearestPlan plan;
  make_levels(from, to, std::move(taps), &plan.levels, &plan.run);
  plan.run *= static_cast<int64_t>(size_of(spec_.dtype));
  for (size_t i = 0; i + 1 < plan.levels.size(); ++i) plan.rows *= plan.levels[i].out;
  // Only float32 extrapolates (checked in the factory).
  context.set_run([plan = std::move(plan), outside,
                   value = spec_.extrapolation_value](const RunArgs& args) -> Status {
    plan.execute(args.input<char>(0), args.output<char>(0), args.parallel);
    outside.execute(&value, args.out[0], args.parallel);
    return {};
  });
}

// Which level is blended last (vertical), and which make up the slab.
void assign_levels(std::vector<Level> levels, int64_t run, InterpolationPlan* plan) {
  int64_t inner = run;
  for (size_t i = levels.size(); i-- > 0; inner *= levels[i].in) levels[i].inner = inner;
  const bool only_last_axis =
      run == 1 && !levels.back().taps.identity &&
      (levels.size() == 1 || (levels.size() == 2 && levels[0].taps.identity));
  size_t next = 0;
  if (!only_last_axis) {
    if (levels[0].taps.identity) plan->outer = levels[next++].in;
    plan->vertical = std::move(levels[next++]);
  } else if (levels.size() == 2) {  // it has no runs to blend: rows pass through
    plan->vertical = std::move(levels[next++]);
  } else {
    plan->vertical.taps.identity = true;
  }
  plan->slab_in = plan->slab_out = run;
  for (size_t i = next; i < levels.size(); ++i) plan->slab_in *= levels[i].in;
  // Stages run outermost first, so a stage's runs hold inner axes that are not resized yet.
  int64_t elements = plan->stage_elements = plan->slab_in;
  for (size_t i = next; i < levels.size(); ++i) {
    elements = elements / levels[i].in * levels[i].out;
    plan->stage_elements = std::max(plan->stage_elements, elements);
    plan->slab_out *= levels[i].out;
    plan->stages.push_back(std::move(levels[i]));
  }
  plan->rows_per_task = std::max<int64_t>(8, kTaskElements / plan->slab_out);
}

void ResizeOp::bind_interpolation(BindContext& context, const Shape& from, const Shape& to,
                                  std::vector<AxisTaps> taps, const Extrapolation& outside) const {
  InterpolationPlan plan;
  plan.kernel = spec_.kernel;
  plan.element_size = static_cast<int64_t>(size_of(spec_.dtype));
  if (spec_.dtype == DType::kU8) {
    plan.to_float = to_float<uint8_t>;
    plan.from_float = from_float<uint8_t>;
  } else if (spec_.dtype == DType::kS8) {
    plan.to_float = to_float<int8_t>;
    plan.from_float = from_float<int8_t>;
  }
  std::vector<Level> levels;
  int64_t run = 1;
  make_levels(from, to, std::move(taps), &levels, &run);
  assign_levels(std::move(levels), run, &plan);
  const int64_t tasks =
      plan.outer * ((plan.vertical.out + plan.rows_per_task - 1) / plan.rows_per_task);
  const size_t per_thread =
      round_up(static_cast<size_t>(plan.scratch_elements()) * sizeof(float), kCacheLine);
  context.set_scratch(per_thread * static_cast<size_t>(context.threads()));
  context.set_run([plan = std::move(plan), outside, tasks, per_thread,
                   value = spec_.extrapolation_value](const RunArgs& args) -> Status {
    args.parallel.loop(tasks, [&](int64_t task, int thread) {
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
  spec.kernel = kResizeKernels.best(desc.isa);
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
