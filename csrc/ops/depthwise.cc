// Depthwise convolution: group = in_channels = out_channels, channels-last. One output row a chunk;
// within it one kernel call per run of pixels (window_taps.h). The integer kernel leaves a few
// pixels of exact sums in L1, which the shared epilogue turns into the result. Steps and operands:
// conv.cc.
#include "ops/depthwise.h"

#include <string>
#include <vector>

#include "ops/conv_ops.h"
#include "ops/conv_quantized.h"
#include "ops/window_kernels.h"
#include "ops/window_taps.h"

namespace lepton {
namespace {

Status check_depthwise(const ConvAttrs& conv) {
  if (conv.group != conv.in_channels || conv.group != conv.out_channels)
    return invalid_model("a depthwise kernel needs group = in_channels = out_channels");
  return {};
}

// Scratch of one call: a row of padding, X in channels-last when it is not, then the threads'
// shares.
struct DepthwiseScratch {
  size_t padding, image, per_thread;
  size_t bytes(int threads) const { return padding + image + threads * per_thread; }
  std::byte* image_at(const RunArgs& args) const { return args.scratch + padding; }
  std::byte* thread_at(const RunArgs& args, int thread) const {
    return args.scratch + padding + image + thread * per_thread;
  }
};
DepthwiseScratch scratch_of(const ConvAttrs& conv, const ConvShape& shape, size_t element,
                            size_t sums) {
  const size_t pixel = conv.in_channels * element;
  const size_t image = is_either_layout(conv, shape.window)
                           ? 0
                           : round_up(shape.batch * shape.window.in_pixels() * pixel, kCacheLine);
  return {round_up(pixel, kCacheLine), image, tap_list_bytes(conv.window.taps()) + sums};
}

// Calls body(list, first, count, row, thread) for every run of every output row.
template <typename T, typename F>
void for_each_tap_list(const ConvAttrs& conv, const ConvShape& shape,
                       const DepthwiseScratch& layout, const RunArgs& args, T padding,
                       const F& body) {
  const WindowShape& s = shape.window;
  T* padding_row = reinterpret_cast<T*>(args.scratch);
  std::fill_n(padding_row, conv.in_channels, padding);
  const T* x = args.input<T>(0);
  if (layout.image != 0) {
    to_channels_last(x, shape.batch, conv.in_channels, s.in_pixels(), sizeof(T),
                     layout.image_at(args), args.parallel);
    x = reinterpret_cast<const T*>(layout.image_at(args));
  }
  args.parallel.loop(shape.batch * s.out[0] * s.out[1], [&](int64_t r, int thread) {
    const OutputRow row = output_row(s, r);
    const T* image = x + row.n * s.in_pixels() * conv.in_channels;
    TapList<T> list = tap_list_at<T>(layout.thread_at(args, thread), conv.window.taps());
    for_each_run(conv.window, s, [&](int64_t first, int64_t count) {
      list_taps<T>(conv.window, s, image, conv.in_channels, row.od, row.oh, first, padding_row,
                   &list);
      body(list, r * s.out[2] + first, count, thread);
    });
  });
}

class DepthwiseF32 final : public Op {
 public:
  ConvAttrs conv;
  DepthwiseF32Kernel kernel = nullptr;
  const float* weights = nullptr;
  const float* bias = nullptr;
  float min = 0.f, max = 0.f;

  Status bind(BindContext& context) const override {
    ConvShape shape;
    LEPTON_RETURN_IF_ERROR(resolve_conv(conv, context.input(0).shape, &shape));
    LEPTON_RETURN_IF_ERROR(expect_residual(context, kFloatResidual, shape.y));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.y));
    const DepthwiseScratch layout = scratch_of(conv, shape, sizeof(float), 0);
    context.set_scratch(layout.bytes(context.threads()));
    const bool residual = context.num_inputs() > kFloatResidual;
    context.set_run([this, shape, layout, residual](const RunArgs& args) {
      return run(shape, layout, residual ? args.input<float>(kFloatResidual) : nullptr, args);
    });
    return {};
  }

 private:
  Status run(const ConvShape& shape, const DepthwiseScratch& layout, const float* residual,
             const RunArgs& args) const {
    const size_t channels = conv.in_channels;
    float* dst = args.output<float>(0);
    for_each_tap_list<float>(conv, shape, layout, args, 0.f,
                             [&](const TapList<float>& list, int64_t pixel, int64_t count, int) {
                               DepthwiseF32Params p{};
                               p.channels = channels;
                               p.taps = list.taps;
                               p.pixels = count;
                               p.input = list.input;
                               p.input_step = list.step;
                               p.weights = weights;
                               p.bias = bias;
                               p.residual =
                                   residual == nullptr ? nullptr : residual + pixel * channels;
                               p.residual_step = p.dst_step = channels;
                               p.min = min;
                               p.max = max;
                               p.dst = dst + pixel * channels;
                               kernel(p);
                             });
    return {};
  }
};

class DepthwiseS8 final : public Op {
 public:
  ConvAttrs conv;
  ConvQuantization q;
  DepthwiseS8Kernel kernel = nullptr;
  const int16_t* weights = nullptr;
  std::vector<int32_t> correction;  // −x_zero_point · sum of the channel's weights
  const int32_t* bias = nullptr;
  const float* scale = nullptr;

  // Pixels whose sums are kept before the epilogue takes them: 16 KB of L1.
  int64_t pixels_at_once() const {
    return std::max<int64_t>(2, 4096 / static_cast<int64_t>(correction.size()) / 2 * 2);
  }

  Status bind(BindContext& context) const override {
    ConvShape shape;
    LEPTON_RETURN_IF_ERROR(resolve_conv(conv, context.input(0).shape, &shape));
    LEPTON_RETURN_IF_ERROR(expect_residual(context, kConvResidual, shape.y));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.y));
    const size_t sums = pixels_at_once() * correction.size() * sizeof(int32_t);
    const DepthwiseScratch layout = scratch_of(conv, shape, 1, round_up(sums, kCacheLine));
    context.set_scratch(layout.bytes(context.threads()));
    const bool residual = q.kind == EpilogueS8Kind::kRequantizeAdd;
    context.set_run([this, shape, layout, residual](const RunArgs& args) {
      return run(shape, layout, residual ? args.input<uint8_t>(kConvResidual) : nullptr, args);
    });
    return {};
  }

 private:
  Status run(const ConvShape& shape, const DepthwiseScratch& layout, const uint8_t* residual,
             const RunArgs& args) const {
    uint8_t* dst = args.output<uint8_t>(0);
    const size_t tap_bytes = tap_list_bytes(conv.window.taps());
    for_each_tap_list<uint8_t>(
        conv, shape, layout, args, static_cast<uint8_t>(q.x_zero_point),
        [&](TapList<uint8_t>& list, int64_t pixel, int64_t count, int thread) {
          auto* sums = reinterpret_cast<int32_t*>(layout.thread_at(args, thread) + tap_bytes);
          const int64_t step = pixels_at_once();
          for (int64_t i = 0; i < count; i += step) {
            const int64_t first = (pixel + i) * conv.in_channels;
            run_pixels(list, std::min(step, count - i), sums,
                       residual == nullptr ? nullptr : residual + first, dst + first * q.dst_size);
          }
        });
    return {};
  }

  void run_pixels(const TapList<uint8_t>& list, int64_t count, int32_t* sums,
                  const uint8_t* residual, uint8_t* dst) const {
    DepthwiseS8Params p{};
    p.channels = conv.in_channels;
    p.taps = list.taps;
    p.pixels = count;
    p.input_signed = q.x_signed;
    p.input = list.input;
    p.input_step = list.step;
    p.weights = weights;
    p.bias = correction.data();
    p.acc = sums;
    p.acc_stride = correction.size();
    kernel(p);
    EpilogueS8Params e{};
    e.m = count;
    e.n = p.channels;
    e.acc = sums;
    e.acc_stride = p.acc_stride;
    e.bias = bias;
    e.scale = scale;
    e.residual = residual;
    e.residual_stride = e.dst_stride = p.channels;
    e.r_signed = q.r_signed;
    e.requantize = q.requantize;
    e.min = q.min;
    e.max = q.max;
    e.dst = dst;
    q.epilogue(e);
  }
};

// Sums of each channel's packed weights, times −zero_point; modulo 2^32.
std::vector<int32_t> zero_point_correction(const int16_t* packed, size_t channels, size_t taps,
                                           int32_t zero_point) {
  const size_t pairs = (taps + 1) / 2;
  std::vector<int32_t> correction(round_up(channels, kDepthwiseBlock));
  for (size_t first = 0; first < channels; first += kDepthwiseBlock) {
    uint32_t sums[kDepthwiseBlock] = {};
    for (size_t i = 0; i < pairs * kDepthwiseBlock * 2; ++i)
      sums[kDepthwiseLane[i / 2 % kDepthwiseBlock]] += static_cast<uint32_t>(int32_t{*packed++});
    for (size_t c = 0; c < kDepthwiseBlock; ++c)
      correction[first + c] =
          static_cast<int32_t>(0u - static_cast<uint32_t>(zero_point) * sums[c]);
  }
  return correction;
}

}  // namespace

Status make_depthwise_f32(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out) {
  auto op = std::make_unique<DepthwiseF32>();
  LEPTON_RETURN_IF_ERROR(check_depthwise(conv));
  const DepthwiseF32KernelInfo* info = depthwise_f32_kernels().find(step.kernel);
  if (info == nullptr)
    return unsupported("kernel " + std::string(step.kernel) + " cannot run here");
  op->conv = conv;
  op->kernel = info->run;
  LEPTON_RETURN_IF_ERROR(
      expect_blob(step.inputs[1], conv.window.taps() * conv.in_channels * sizeof(float)));
  op->weights = static_cast<const float*>(step.inputs[1].data);
  if (step.has_input(kConvBias)) op->bias = static_cast<const float*>(step.inputs[kConvBias].data);
  LEPTON_RETURN_IF_ERROR(parse_clamp(*step.attrs, &op->min, &op->max));
  *out = std::move(op);
  return {};
}

Status make_depthwise_s8(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out) {
  auto op = std::make_unique<DepthwiseS8>();
  LEPTON_RETURN_IF_ERROR(check_depthwise(conv));
  LEPTON_RETURN_IF_ERROR(parse_conv_quantization(step, conv, &op->q));
  const DepthwiseS8KernelInfo* info = depthwise_s8_kernels().find(step.kernel);
  if (info == nullptr)
    return unsupported("kernel " + std::string(step.kernel) + " cannot run here");
  const size_t channels = conv.in_channels, taps = conv.window.taps();
  LEPTON_RETURN_IF_ERROR(
      expect_blob(step.inputs[1], depthwise_s8_packed_size(channels, taps) * sizeof(int16_t)));
  op->conv = conv;
  op->kernel = info->run;
  op->weights = static_cast<const int16_t*>(step.inputs[1].data);
  op->correction = zero_point_correction(op->weights, channels, taps, op->q.x_zero_point);
  if (step.has_input(kConvBias))
    op->bias = static_cast<const int32_t*>(step.inputs[kConvBias].data);
  if (step.has_input(kConvScale))
    op->scale = static_cast<const float*>(step.inputs[kConvScale].data);
  *out = std::move(op);
  return {};
}

}  // namespace lepton
