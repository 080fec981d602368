// lepton.ConvTranspose (float32): X, W, bias?      y = clamp(convᵀ(X, W) + bias, min, max)
//
// Attributes: those of conv_geometry.h (in_channels is X's), output_padding, output_shape
// (spatial), and min, max. W is pack_gemm_f32 of w[group][in_per_group][taps · out_per_group],
// tap-major (the ONNX weight [C, M/g, k…] with its axes moved to [g, C/g, k…, M/g]). The result is
// channels-last.
//
// Two passes: one product gives every input pixel's contribution to each of its taps; then each
// output pixel adds up the contributions that fall on it, in tap order, so no two threads write the
// same place.
#include <algorithm>
#include <limits>
#include <string>

#include "ops/conv_geometry.h"
#include "ops/conv_quantized.h"
#include "ops/gemm_driver.h"
#include "ops/requantize.h"

namespace lepton {
namespace {

struct TransposeAttrs {
  ConvAttrs conv;
  int64_t output_padding[kSpatial] = {};
  int64_t output_shape[kSpatial] = {1, 1, 1};
  bool has_output_shape = false;
};

Status read_spatial(const Attrs& attrs, const char* name, int rank, int64_t* out, bool* present) {
  const Attrs::Ints list = attrs.ints(name);
  *present = list.size != 0;
  if (!*present) return {};
  if (list.size != static_cast<size_t>(rank))
    return invalid_model(std::string(name) + " must have one value per spatial dimension");
  for (int i = 0; i < rank; ++i) {
    if (list.data[i] < 0 || list.data[i] > (int64_t{1} << 30))
      return invalid_model(std::string(name) + " is out of range");
    out[kSpatial - rank + i] = list.data[i];
  }
  return {};
}

// One axis of the output: size, and padding cut off its beginning.
void resolve_axis(const TransposeAttrs& t, int a, WindowShape* s) {
  const Window& w = t.conv.window;
  const int64_t full = w.stride[a] * (s->in[a] - 1) + t.output_padding[a] + w.extent(a);
  const bool same = w.auto_pad == AutoPad::kSameUpper || w.auto_pad == AutoPad::kSameLower;
  if (!t.has_output_shape && !same) {
    const bool valid = w.auto_pad == AutoPad::kValid;
    s->pad_begin[a] = valid ? 0 : w.pad_begin[a];
    s->out[a] = std::max<int64_t>(0, full - s->pad_begin[a] - (valid ? 0 : w.pad_end[a]));
    return;
  }
  s->out[a] = t.has_output_shape ? t.output_shape[a] : s->in[a] * w.stride[a];
  const int64_t total = std::max<int64_t>(0, full - s->out[a]);
  s->pad_begin[a] = w.auto_pad == AutoPad::kSameUpper ? total / 2 : total - total / 2;
}

Status resolve(const TransposeAttrs& t, const Shape& x, ConvShape* shape) {
  const ConvAttrs& conv = t.conv;
  if (x.rank != conv.window.rank + 2 || channels_of(x, conv.channels_last) != conv.in_channels)
    return invalid_input("X of shape " + x.str() + " does not fit the convolution");
  WindowShape& s = shape->window;
  for (int i = 0; i < conv.window.rank; ++i)
    s.in[kSpatial - conv.window.rank + i] = x[conv.channels_last ? 1 + i : 2 + i];
  for (int a = 0; a < kSpatial; ++a) resolve_axis(t, a, &s);
  shape->batch = batch_of(x);
  shape->y = window_output(conv.window, s, shape->batch, conv.out_channels, true);
  return is_valid(shape->y) ? Status() : invalid_input("the result would be too large");
}

// Scratch: X in channels-last when it is not, then one image's contributions
// [in pixels][group][taps][out_per_group].
struct TransposeScratch {
  size_t image = 0, contributions = 0;
};

class ConvTranspose final : public Op {
 public:
  TransposeAttrs attrs;
  GemmF32Plan plan{};  // one group: [in_per_group] × [taps · out_per_group], no bias, no clamp
  const float* bias = nullptr;
  float min = 0.f, max = 0.f;

  Status bind(BindContext& context) const override {
    const ConvAttrs& conv = attrs.conv;
    ConvShape shape;
    LEPTON_RETURN_IF_ERROR(resolve(attrs, context.input(0).shape, &shape));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.y));
    const Shape contributions{shape.window.in_pixels(), conv.window.taps(), conv.out_channels};
    if (!is_valid(contributions)) return invalid_input("the convolution would be too large");
    TransposeScratch layout;
    if (!is_either_layout(conv, shape.window))
      layout.image = round_up(
          shape.batch * shape.window.in_pixels() * conv.in_channels * sizeof(float), kCacheLine);
    layout.contributions = contributions.elements() * sizeof(float);
    context.set_scratch(layout.image + layout.contributions);
    context.set_run(
        [this, shape, layout](const RunArgs& args) { return run(shape, layout, args); });
    return {};
  }

 private:
  Status run(const ConvShape& shape, const TransposeScratch& layout, const RunArgs& args) const {
    const ConvAttrs& conv = attrs.conv;
    const int64_t in = shape.window.in_pixels(), out = shape.window.out_pixels();
    const float* x = args.input<float>(0);
    if (layout.image != 0) {
      to_channels_last(x, shape.batch, conv.in_channels, in, sizeof(float), conv.isa, args.scratch,
                       args.parallel);
      x = reinterpret_cast<const float*>(args.scratch);
    }
    float* contributions = reinterpret_cast<float*>(args.scratch + layout.image);
    for (int64_t n = 0; n < shape.batch; ++n) {
      multiply(x + n * in * conv.in_channels, in, contributions, args.parallel);
      float* y = args.output<float>(0) + n * out * conv.out_channels;
      const WindowShape& s = shape.window;
      args.parallel.loop(s.out[0] * s.out[1], [&](int64_t row, int) {
        add_row(s, contributions, row / s.out[1], row % s.out[1],
                y + row * s.out[2] * conv.out_channels);
      });
    }
    return {};
  }

  void multiply(const float* x, int64_t pixels, float* contributions, Parallel parallel) const {
    const ConvAttrs& conv = attrs.conv;
    const size_t panels = gemm_panels(*plan.kernel, plan.n);
    const GemmGrid grid =
        gemm_grid(pixels, panels, plan.kernel->mr, plan.k * sizeof(float), parallel.threads());
    const size_t packed_stride = panels * gemm_panel_stride(*plan.kernel, plan.k);
    const int64_t chunks = grid.chunks();
    parallel.loop(conv.group * chunks, [&](int64_t i, int) {
      const int64_t g = i / chunks;
      const GemmChunk c = grid.chunk(i % chunks);
      GemmF32Plan p = plan;
      p.packed = static_cast<const float*>(plan.packed) + g * packed_stride;
      GemmF32Block block{};
      block.m = c.rows;
      block.rows = x + c.row * conv.in_channels + g * plan.k;
      block.row_stride = conv.in_channels;
      block.first = c.first;
      block.last = c.last;
      block.dst_stride = conv.group * plan.n;
      block.dst = contributions + c.row * block.dst_stride + g * plan.n;
      gemm_f32_block(p, block);
    });
  }

  // Input position whose tap `t` falls on output `o` of an axis, or −1.
  int64_t source(const WindowShape& s, int axis, int64_t o, int64_t t) const {
    const Window& w = attrs.conv.window;
    const int64_t at = o + s.pad_begin[axis] - t * w.dilation[axis];
    if (at < 0 || at % w.stride[axis] != 0) return -1;
    const int64_t i = at / w.stride[axis];
    return i < s.in[axis] ? i : -1;
  }

  void add_row(const WindowShape& s, const float* contributions, int64_t od, int64_t oh,
               float* y) const {
    const ConvAttrs& conv = attrs.conv;
    const Window& w = conv.window;
    const int64_t m = conv.out_channels;
    for (int64_t o = 0; o < s.out[2]; ++o)
      bias != nullptr ? (void)std::copy_n(bias, m, y + o * m)
                      : (void)std::fill_n(y + o * m, m, 0.f);
    for (int64_t i = 0; i < w.kernel[0]; ++i) {
      const int64_t d = source(s, 0, od, i);
      for (int64_t j = 0; d >= 0 && j < w.kernel[1]; ++j) {
        const int64_t h = source(s, 1, oh, j);
        for (int64_t k = 0; h >= 0 && k < w.kernel[2]; ++k) {
          const int64_t tap = (i * w.kernel[1] + j) * w.kernel[2] + k;
          const float* line = contributions + (d * s.in[1] + h) * s.in[2] * w.taps() * m;
          for (int64_t o = 0; o < s.out[2]; ++o) {
            const int64_t x = source(s, 2, o, k);
            if (x >= 0) add_pixel(line + x * w.taps() * m, tap, y + o * m);
          }
        }
      }
    }
    for (int64_t i = 0; i < s.out[2] * m; ++i) y[i] = y[i] < min ? min : y[i] > max ? max : y[i];
  }

  // contributions of one input pixel: [group][taps][out_per_group].
  void add_pixel(const float* contributions, int64_t tap, float* y) const {
    const int64_t per_group = attrs.conv.out_per_group();
    for (int64_t g = 0; g < attrs.conv.group; ++g) {
      const float* from = contributions + g * static_cast<int64_t>(plan.n) + tap * per_group;
      for (int64_t i = 0; i < per_group; ++i) y[g * per_group + i] += from[i];
    }
  }
};

Status parse(const StepDesc& step, TransposeAttrs* t) {
  LEPTON_RETURN_IF_ERROR(parse_conv(*step.attrs, step.isa, &t->conv));
  const int rank = t->conv.window.rank;
  bool present = false;
  LEPTON_RETURN_IF_ERROR(
      read_spatial(*step.attrs, "output_padding", rank, t->output_padding, &present));
  return read_spatial(*step.attrs, "output_shape", rank, t->output_shape, &t->has_output_shape);
}

}  // namespace

Status make_conv_transpose(const StepDesc& step, std::unique_ptr<Op>* out) {
  if (step.inputs.size() < 2 || step.inputs.size() > 3 || step.outputs.size() != 1)
    return invalid_model("lepton.ConvTranspose takes X, W, bias");
  if (step.inputs[0].dtype != DType::kF32 || step.outputs[0] != DType::kF32)
    return unsupported("a transposed convolution of " + std::string(name_of(step.inputs[0].dtype)));
  auto op = std::make_unique<ConvTranspose>();
  LEPTON_RETURN_IF_ERROR(parse(step, &op->attrs));
  const ConvAttrs& conv = op->attrs.conv;
  op->plan.kernel = gemm_f32_kernels().find(step.kernel);
  if (op->plan.kernel == nullptr)
    return unsupported("kernel " + std::string(step.kernel) + " cannot run here");
  const int64_t n = conv.window.taps() * conv.out_per_group();
  op->plan.k = conv.in_per_group();
  op->plan.n = n;
  size_t bytes = 0;
  LEPTON_RETURN_IF_ERROR(gemm_packed_size(*op->plan.kernel, conv.in_per_group(), n, &bytes));
  if (bytes > static_cast<size_t>(kMaxElements) / conv.group)
    return invalid_model("packed W is too large");
  LEPTON_RETURN_IF_ERROR(expect_blob(step.inputs[1], bytes * conv.group));
  op->plan.packed = step.inputs[1].data;
  op->plan.min = -std::numeric_limits<float>::infinity();
  op->plan.max = std::numeric_limits<float>::infinity();
  op->plan.epilogue = best_epilogue_f32(step.isa);
  if (step.has_input(2)) {
    LEPTON_RETURN_IF_ERROR(expect_vector(step.inputs[2], DType::kF32, conv.out_channels, "bias"));
    op->bias = static_cast<const float*>(step.inputs[2].data);
  }
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &op->min, &op->max));
  *out = std::move(op);
  return {};
}

}  // namespace lepton
