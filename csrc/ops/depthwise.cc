// Depthwise convolution: group = in_channels = out_channels, channels-last. One output row a chunk;
// within it one kernel call per run of pixels (window_taps.h). The integer kernel leaves a few
// pixels of exact sums in L1, which the shared epilogue turns into the result. Steps and operands:
// conv.cc.
#include "ops/depthwise.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ops/conv_ops.h"
#include "ops/conv_quantized.h"
#include "ops/requantize.h"
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
  return {round_up(pixel, kCacheLine), image,
          thread_share(tap_list_bytes(conv.window.taps()) + sums)};
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
    to_channels_last(x, shape.batch, conv.in_channels, s.in_pixels(), sizeof(T), conv.isa,
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

// Operands of depthwise_quads.h, aligned.
class QuadOperands {
 public:
  std::byte* reserve(size_t bytes) {
    lines_.resize(ceil_div(bytes, sizeof(Line)));
    return lines_[0].bytes;
  }
  const std::byte* data() const { return lines_[0].bytes; }

 private:
  struct alignas(kCacheLine) Line {
    std::byte bytes[kCacheLine];
  };
  std::vector<Line> lines_;
};

class DepthwiseS8 final : public Op {
 public:
  ConvAttrs conv;
  ConvQuantization q;
  DepthwiseS8Kernel kernel = nullptr;
  const int16_t* weights = nullptr;
  std::vector<int32_t> bias;  // in lane order, with −x_zero_point · sum of the channel's weights
  std::vector<float> lane_scale;  // in lane order
  const float* scale = nullptr;
  // Where the window, the weights and the scales are for it; with its operands.
  DepthwiseQuadsKernel quads_kernel = nullptr;
  QuadOperands quads;

  Status bind(BindContext& context) const override {
    ConvShape shape;
    LEPTON_RETURN_IF_ERROR(resolve_conv(conv, context.input(0).shape, &shape));
    LEPTON_RETURN_IF_ERROR(expect_residual(context, kConvResidual, shape.y));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.y));
    const size_t sums = is_fused() ? 0 : pixels_at_once() * bias.size() * sizeof(int32_t);
    const DepthwiseScratch layout = scratch_of(conv, shape, 1, round_up(sums, kCacheLine));
    context.set_scratch(layout.bytes(context.threads()));
    context.set_run([this, shape, layout](const RunArgs& args) {
      const auto padding = static_cast<uint8_t>(q.x_zero_point);
      for_each_tap_list<uint8_t>(
          conv, shape, layout, args, padding,
          [&](const TapList<uint8_t>& list, int64_t pixel, int64_t count, int thread) {
            quads_kernel != nullptr ? run_quads(list, pixel, count, args)
            : is_fused() ? run_fused(list, pixel, count, args)
                         : run_sums(list, pixel, count, args, layout.thread_at(args, thread));
          });
      return Status();
    });
    return {};
  }

 private:
  // The kernel requantises; otherwise it leaves sums for another epilogue.
  bool is_fused() const { return q.kind == EpilogueS8Kind::kRequantize; }
  // Pixels whose sums are kept before the epilogue takes them: 16 KB of L1.
  int64_t pixels_at_once() const {
    return std::max<int64_t>(2, 4096 / static_cast<int64_t>(bias.size()) / 2 * 2);
  }

  DepthwiseS8Params kernel_params(const TapList<uint8_t>& list) const {
    DepthwiseS8Params p{};
    p.channels = conv.in_channels;
    p.taps = list.taps;
    p.input_signed = q.x_signed;
    p.input = list.input;
    p.input_step = list.step;
    p.weights = weights;
    p.bias = bias.data();
    return p;
  }

  void run_fused(const TapList<uint8_t>& list, int64_t pixel, int64_t count,
                 const RunArgs& args) const {
    DepthwiseS8Params p = kernel_params(list);
    p.pixels = count;
    p.scale = lane_scale.data();
    p.zero_point = q.requantize.zero_point;
    p.lo = q.requantize.lo;
    p.hi = q.requantize.hi;
    p.dst = args.output<uint8_t>(0) + pixel * conv.in_channels;
    p.dst_step = p.channels;
    kernel(p);
  }

  void run_quads(const TapList<uint8_t>& list, int64_t pixel, int64_t count,
                 const RunArgs& args) const {
    DepthwiseQuadsParams p{};
    p.channels = p.dst_step = conv.in_channels;
    p.rows = list.taps / 3;
    p.pixels = count;
    p.input = list.input;
    p.input_step = list.step;
    p.operands = quads.data();
    p.zero_point = q.requantize.zero_point;
    p.lo = q.requantize.lo;
    p.hi = q.requantize.hi;
    p.dst = args.output<uint8_t>(0) + pixel * conv.in_channels;
    quads_kernel(p);
  }

  void run_sums(const TapList<uint8_t>& list, int64_t pixel, int64_t count, const RunArgs& args,
                std::byte* scratch) const {
    DepthwiseS8Params p = kernel_params(list);
    p.acc = reinterpret_cast<int32_t*>(scratch + tap_list_bytes(conv.window.taps()));
    p.acc_stride = bias.size();
    EpilogueS8Params e{};
    e.n = e.residual_stride = e.dst_stride = p.channels;
    e.acc = p.acc;
    e.acc_stride = p.acc_stride;
    e.scale = scale;
    e.r_signed = q.r_signed;
    e.requantize = q.requantize;
    e.min = q.min;
    e.max = q.max;
    const int64_t step = pixels_at_once();
    for (int64_t i = 0; i < count; i += step) {
      const int64_t first = (pixel + i) * conv.in_channels;
      p.pixels = e.m = static_cast<size_t>(std::min(step, count - i));
      if (adds_bytes(q.kind)) e.residual = args.input<uint8_t>(kConvResidual) + first;
      e.dst = args.output<uint8_t>(0) + first * static_cast<int64_t>(q.dst_size);
      kernel(p);
      q.epilogue(e);
    }
  }
};

// v[channels] as the kernel reads it; v may be null: zeros.
template <typename T>
std::vector<T> in_lane_order(const T* v, size_t channels) {
  std::vector<T> lanes(round_up(channels, kDepthwiseBlock));
  for (size_t i = 0; i < lanes.size(); ++i) {
    const size_t c = i / kDepthwiseBlock * kDepthwiseBlock + kDepthwiseLane[i % kDepthwiseBlock];
    if (v != nullptr && c < channels) lanes[i] = v[c];
  }
  return lanes;
}

// Adds −zero_point times the sum of each channel's packed weights; modulo 2^32.
void correct_zero_point(const int16_t* packed, size_t taps, int32_t zero_point,
                        std::vector<int32_t>* bias) {
  const size_t pairs = (taps + 1) / 2;
  for (size_t first = 0; first < bias->size(); first += kDepthwiseBlock) {
    uint32_t sums[kDepthwiseBlock] = {};
    for (size_t i = 0; i < pairs * kDepthwiseBlock * 2; ++i)
      sums[i / 2 % kDepthwiseBlock] += static_cast<uint32_t>(int32_t{*packed++});
    for (size_t lane = 0; lane < kDepthwiseBlock; ++lane) {
      int32_t& b = (*bias)[first + lane];
      b = static_cast<int32_t>(static_cast<uint32_t>(b) -
                               static_cast<uint32_t>(zero_point) * sums[lane]);
    }
  }
}

// A packed weight of a channel.
int16_t weight_of(const int16_t* packed, size_t taps, size_t channel, size_t tap) {
  const size_t pairs = (taps + 1) / 2, within = channel % kDepthwiseBlock;
  const uint8_t* const place =
      std::find(kDepthwiseLane, kDepthwiseLane + kDepthwiseBlock, static_cast<uint8_t>(within));
  const size_t block = channel / kDepthwiseBlock * pairs + tap / 2;
  return packed[(block * kDepthwiseBlock + static_cast<size_t>(place - kDepthwiseLane)) * 2 +
                tap % 2];
}

// Takes the kernel for windows three taps wide where it gives the same bits: activations are u8,
// weights int8, and scaled sums stay within int32.
void choose_quads(const DepthwiseS8KernelInfo& info, const int32_t* bias, DepthwiseS8* op) {
  const size_t channels = op->conv.in_channels, taps = op->conv.window.taps();
  const bool fits = op->conv.window.kernel[2] == 3 && !op->q.x_signed &&
                    op->q.kind == EpilogueS8Kind::kRequantize;
  const DepthwiseQuadsKernel kernel = find_depthwise_quads(info);
  if (!fits || kernel == nullptr) return;
  std::vector<int16_t> w(taps * channels);
  std::vector<int32_t> corrected(channels);
  for (size_t c = 0; c < channels; ++c) {
    if (!(std::abs(op->scale[c]) <= 0.5f)) return;
    uint32_t sum = 0;
    for (size_t t = 0; t < taps; ++t) {
      const int16_t value = w[t * channels + c] = weight_of(op->weights, taps, c, t);
      if (value < -128 || value > 127) return;
      sum += static_cast<uint32_t>(int32_t{value});
    }
    const uint32_t start = bias == nullptr ? 0 : static_cast<uint32_t>(bias[c]);
    corrected[c] = static_cast<int32_t>(start - static_cast<uint32_t>(op->q.x_zero_point) * sum);
  }
  const size_t rows = taps / 3;
  pack_depthwise_quads(w.data(), corrected.data(), op->scale, channels, rows,
                       op->quads.reserve(depthwise_quads_bytes(channels, rows)));
  op->quads_kernel = kernel;
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
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &op->min, &op->max));
  *out = std::move(op);
  return {};
}

Status make_depthwise_s8(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out) {
  auto op = std::make_unique<DepthwiseS8>();
  LEPTON_RETURN_IF_ERROR(check_depthwise(conv));
  LEPTON_RETURN_IF_ERROR(parse_conv_quantization(step, conv, &op->q));
  if (op->q.zero_point_at_run) return unsupported("a depthwise x_zero_point that is an operand");
  const DepthwiseS8KernelInfo* info = depthwise_s8_kernels().find(step.kernel);
  if (info == nullptr)
    return unsupported("kernel " + std::string(step.kernel) + " cannot run here");
  const size_t channels = conv.in_channels, taps = conv.window.taps();
  LEPTON_RETURN_IF_ERROR(
      expect_blob(step.inputs[1], depthwise_s8_packed_size(channels, taps) * sizeof(int16_t)));
  op->conv = conv;
  op->kernel = info->run;
  op->weights = static_cast<const int16_t*>(step.inputs[1].data);
  const bool has_bias = step.has_input(kConvBias);
  const auto* const bias =
      has_bias ? static_cast<const int32_t*>(step.inputs[kConvBias].data) : nullptr;
  op->bias = in_lane_order(bias, channels);
  correct_zero_point(op->weights, taps, op->q.x_zero_point, &op->bias);
  if (step.has_input(kConvScale))
    op->scale = static_cast<const float*>(step.inputs[kConvScale].data);
  op->lane_scale = in_lane_order(op->scale, channels);
  choose_quads(*info, bias, op.get());
  *out = std::move(op);
  return {};
}

}  // namespace lepton
