// Normalisations by channel of N, C, spatial… tensors: each becomes y = x · scale + shift over runs
// of one channel. Group and instance normalisation measure their region first; batch normalisation
// knows its statistics.
#include <algorithm>
#include <cmath>
#include <memory>

#include "ops/movement.h"
#include "ops/norm_kernels.h"
#include "ops/op.h"
#include "ops/via_f32.h"

namespace lepton {
namespace {

struct ChannelView {
  int64_t batch, channels, spatial;
};

Status view_channels(BindContext& context, int first, int last, ChannelView* view) {
  const Shape& shape = context.input(0).shape;
  if (shape.rank < 2) return invalid_input("expected N, C, spatial… dimensions");
  *view = {shape[0], shape[1], shape.product(2, shape.rank)};
  for (int i = first; i < last; ++i) {
    const Shape& s = context.input(i).shape;
    if (s.rank != 1 || s[0] != view->channels)
      return invalid_input("expected one value per channel, got shape " + s.str());
  }
  LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
  context.allow_in_place(0, 0);
  return {};
}

// Group normalisation; instance normalisation is its case of one channel per group.
class GroupNormOp : public Op {
 public:
  explicit GroupNormOp(const StepDesc& step)
      : groups_(step.op == "GroupNormalization" ? step.attrs->i("num_groups") : 0),
        epsilon_(step.attrs->f("epsilon", 1e-5f)),
        kernels_(find_norm(step.isa)) {}

  Status bind(BindContext& context) const override {
    ChannelView v{};
    LEPTON_RETURN_IF_ERROR(view_channels(context, 1, 3, &v));
    const int64_t groups = groups_ == 0 ? v.channels : groups_;
    if (context.input(0).shape.elements() == 0) return nothing_to_run(context);
    if (v.channels % groups != 0) return invalid_input("channels do not divide into groups");
    const int64_t width = v.channels / groups;
    context.set_run([this, v, groups, width](const RunArgs& args) -> Status {
      const int64_t grain = kNormGrain / (width * v.spatial);
      parallel_ranges(args.parallel, v.batch * groups, grain, [&](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; ++g) run_group(args, v, g, g % groups * width, width);
      });
      return {};
    });
    return {};
  }

 private:
  void run_group(const RunArgs& args, const ChannelView& v, int64_t group, int64_t channel,
                 int64_t width) const {
    const int64_t count = width * v.spatial;
    const float* x = args.input<float>(0) + group * count;
    float* y = args.output<float>(0) + group * count;
    const double elements = static_cast<double>(count);
    const float mean = static_cast<float>(kernels_.sum(x, static_cast<size_t>(count)) / elements);
    const double variance = kernels_.sum_square(x, static_cast<size_t>(count), mean) / elements;
    const float inverse = inverse_deviation(variance, epsilon_);
    for (int64_t c = 0; c < width; ++c) {
      const float scale = inverse * args.input<float>(1)[channel + c];
      const float shift = args.input<float>(2)[channel + c] - mean * scale;
      kernels_.affine(x + c * v.spatial, y + c * v.spatial, static_cast<size_t>(v.spatial), scale,
                      shift);
    }
  }

  int64_t groups_;
  float epsilon_;
  NormKernels kernels_;
};

class BatchNormOp : public Op {
 public:
  explicit BatchNormOp(const StepDesc& step)
      : epsilon_(step.attrs->f("epsilon", 1e-5f)), kernels_(find_norm(step.isa)) {}

  Status bind(BindContext& context) const override {
    const Shape& shape = context.input(0).shape;
    ChannelView v{};
    if (shape.rank == 1) {  // N only: one channel
      LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
      v = {shape[0], 1, 1};
      for (int i = 1; i < 5; ++i)
        if (context.input(i).shape.elements() != 1) return invalid_input("expected one channel");
    } else {
      LEPTON_RETURN_IF_ERROR(view_channels(context, 1, 5, &v));
    }
    if (shape.elements() == 0) return nothing_to_run(context);
    context.set_scratch(static_cast<size_t>(2 * v.channels) * sizeof(float));
    context.set_run([this, v](const RunArgs& args) {
      run(args, v);
      return Status();
    });
    return {};
  }

 private:
  void run(const RunArgs& args, const ChannelView& v) const {
    float* scale = reinterpret_cast<float*>(args.scratch);
    float* shift = scale + v.channels;
    for (int64_t c = 0; c < v.channels; ++c) {
      scale[c] = args.input<float>(1)[c] * inverse_deviation(args.input<float>(4)[c], epsilon_);
      shift[c] = args.input<float>(2)[c] - args.input<float>(3)[c] * scale[c];
    }
    const float* x = args.input<float>(0);
    float* y = args.output<float>(0);
    // Rows of channels when there is no space, else runs of one channel.
    const bool flat = v.spatial == 1;
    const int64_t runs = flat ? v.batch : v.batch * v.channels;
    const int64_t n = flat ? v.channels : v.spatial;
    parallel_ranges(args.parallel, runs, kNormGrain / n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at = r * n;
        if (!flat) {
          const int64_t c = r % v.channels;
          kernels_.affine(x + at, y + at, static_cast<size_t>(n), scale[c], shift[c]);
        } else {
          for (int64_t c = 0; c < n; ++c) y[at + c] = x[at + c] * scale[c] + shift[c];
        }
      }
    });
  }

  float epsilon_;
  NormKernels kernels_;
};

Status check_all_f32(const StepDesc& step, size_t inputs) {
  LEPTON_RETURN_IF_ERROR(check_operands(step, inputs, inputs));
  if (step.outputs.size() != 1) return unsupported("more than one output");
  for (const TensorInfo& input : step.inputs)
    if (input.dtype != DType::kF32) return unsupported("dtype of an input");
  if (step.outputs[0] != DType::kF32) return unsupported("dtype of the output");
  return {};
}

}  // namespace

Status make_group_norm(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (has_half_floats(step)) return make_via_f32(step, make_group_norm, op);
  LEPTON_RETURN_IF_ERROR(check_all_f32(step, 3));
  if (step.attrs->i("stash_type", 1) != 1) return unsupported("stash_type");
  if (step.op == "GroupNormalization" && step.attrs->i("num_groups") < 1)
    return invalid_model("num_groups");
  *op = std::make_unique<GroupNormOp>(step);
  return {};
}

Status make_batch_norm(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (has_half_floats(step)) return make_via_f32(step, make_batch_norm, op);
  LEPTON_RETURN_IF_ERROR(check_all_f32(step, 5));
  if (step.attrs->i("training_mode") != 0) return unsupported("training_mode");
  *op = std::make_unique<BatchNormOp>(step);
  return {};
}

}  // namespace lepton
