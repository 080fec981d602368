// lepton.Conv, lepton.QLinearConv: convolution over one to three spatial dimensions, channels-last
// result.
//
// lepton.Conv (float32): X, W, bias?, residual?
//   y = clamp(conv(X, W) + bias + residual, min, max); min, max unbounded unless given.
//
// lepton.QLinearConv: X, W, bias?, scale?, residual?, x_zero_point?
//   X u8 or s8, bias s32, scale f32, residual u8 or s8. x_zero_point is an attribute, or an operand
//   when it is known at run time only. Exact int32 sums of (x − x_zero_point)·(w − w_zero_point),
//   then one kind of epilogue.h, by the dtype of the result:
//     u8, s8: attributes y_zero_point, lo, hi
//     u8, s8 with residual: these, and r_scale (divided by y_scale), r_zero_point; or, where q is
//       rounded before the addition, these for q, and q_scale, r_scale, r_zero_point, out_scale,
//       out_zero_point, out_lo, out_hi
//     f32: min, max
//     s32: nothing, and no scale
//   scale[j] = (x_scale · w_scale[j]) / y_scale; for f32 results x_scale · w_scale[j].
//
// Attributes of the geometry: conv_geometry.h. bias and scale are constants of out_channels
// entries; residual has the shape of the result. W is a constant whose form the step's kernel
// decides:
//   gemm_*: pack_gemm_* of w[group][taps · in_per_group][out_per_group], tap-major, which is the
//     ONNX weight [M, C/g, k…] with its axes moved to [g, k…, C/g, M/g]
//     with the attribute winograd: see conv_winograd.cc and conv_winograd_s8.cc
//   gemm_bf16_*: the same values as bfloat16, packed by pack_gemm_bf16
//   gemm_s8_sparse_*, gemm_f32_sparse_*: the blob of gemm_sparse.h of the same, group = 1
//   gemm_s8_* that read windows, with the attribute planar (X not channels-last, group = 1, two
//     spatial dimensions): pack_gemm_s8 of w[rows · C · columns up to a multiple of 4][M], the
//     kernel's axes in the order row, channel, column, and zeros beyond its columns
//   depthwise_f32_*: float32 w[taps][channels]
//   depthwise_s8_*: pack_depthwise_s8 of the same
//
// The gemm path multiplies gathered rows, one per output pixel, a block at a time in the thread's
// own scratch; 8-bit kernels that have a twin for windows (conv_windows.h) read them from a copy of
// the image rows instead. A 1x1 convolution with stride 1 reads the rows where they lie, if the
// kernel can.
#include <algorithm>
#include <cstring>
#include <string>

#include "ops/conv_gather.h"
#include "ops/conv_ops.h"
#include "ops/conv_padded.h"
#include "ops/conv_quantized.h"
#include "ops/conv_windows.h"
#include "ops/gemm_bf16_kernels.h"
#include "ops/gemm_driver.h"
#include "ops/gemm_lhs.h"
#include "ops/gemm_sparse.h"
#include "ops/requantize.h"
#include "ops/window_kernels.h"

namespace lepton {
namespace {

// How one call is cut, and its scratch: X in channels-last when it is not, X with its padding where
// that pays, then the threads' rows and partial sums.
struct ConvGrid {
  GemmGrid grid;
  size_t row_stride;  // elements of a gathered row
  size_t image, rows, partial = 0;
  PaddedImages padded;
  ConvWindows windows;  // then nothing is gathered
  size_t share() const { return thread_share(rows + partial); }
  size_t bytes(int threads) const { return threads_offset() + threads * share(); }
  size_t threads_offset() const { return image + padded.bytes(); }

  ConvGrid(const ConvAttrs& conv, const ConvShape& shape, const GemmGrid& grid, size_t row_stride,
           size_t in_element, size_t row_element)
      : grid(grid),
        row_stride(row_stride),
        image(0),
        rows(round_up(grid.rows_per_chunk * row_stride * row_element, kCacheLine)),
        padded(conv, shape, row_element) {
    if (padded.bytes() != 0) rows += kCacheLine;  // for the blocks of the last row
    if (!conv.planar && !is_either_layout(conv, shape.window))
      image = round_up(shape.batch * shape.window.in_pixels() * conv.in_channels * in_element,
                       kCacheLine);
  }

  void use(const ConvWindows& instead) {
    windows = instead;
    padded = PaddedImages();
    rows = round_up(windows.bytes(grid.rows_per_chunk), kCacheLine);
  }

  // X in channels-last: where it is, or copied.
  template <typename T>
  const T* input(const ConvAttrs& conv, const ConvShape& shape, const RunArgs& args) const {
    if (image == 0) return args.input<T>(0);
    to_channels_last(args.in[0], shape.batch, conv.in_channels, shape.window.in_pixels(), sizeof(T),
                     conv.isa, args.scratch, args.parallel);
    return reinterpret_cast<const T*>(args.scratch);
  }
  // X with its padding; null when it is gathered as it is.
  template <typename Copy>
  const typename Copy::Out* padded_input(const Copy& copy, const typename Copy::In* x,
                                         const RunArgs& args) const {
    if (padded.bytes() == 0) return nullptr;
    auto* to = reinterpret_cast<typename Copy::Out*>(args.scratch + image);
    padded.fill(copy, x, to, args.parallel);
    return to;
  }
  template <typename T>
  T* rows_of(const RunArgs& args, int thread) const {
    return reinterpret_cast<T*>(args.scratch + threads_offset() + thread * share());
  }
  float* partial_of(const RunArgs& args, int thread) const {
    return partial == 0 ? nullptr : rows_of<float>(args, thread) + rows / sizeof(float);
  }

  // body(group, chunk of that group's product, thread)
  template <typename F>
  void for_each_chunk(int64_t groups, const RunArgs& args, const F& body) const {
    const int64_t chunks = grid.chunks();
    args.parallel.loop(groups * chunks, [&](int64_t i, int thread) {
      body(i / chunks, grid.chunk(i % chunks), thread);
    });
  }
};

struct CopyF32 {
  using In = float;
  using Out = float;
  static constexpr float padding = 0.f;
  void operator()(int64_t m, int64_t k, const float* src, int64_t src_stride, float* dst,
                  int64_t dst_stride) const {
    for (int64_t i = 0; i < m; ++i) copy(src + i * src_stride, k, dst + i * dst_stride);
  }

 private:
  // Short rows (a few pixels of an image) by fours, the last four overlapping: a call of memcpy
  // would cost more than it copies.
  static void copy(const float* src, int64_t k, float* dst) {
    if (k < 4 || k > 64) {
      std::copy_n(src, k, dst);
      return;
    }
    for (int64_t i = 0; i + 4 <= k; i += 4) std::memcpy(dst + i, src + i, 4 * sizeof(float));
    std::memcpy(dst + k - 4, src + k - 4, 4 * sizeof(float));
  }
};

// Element: of the prepared rows.
template <typename Element>
struct CopyPrepared {
  using In = uint8_t;
  using Out = Element;
  const GemmS8Lhs& lhs;
  int32_t zero_point;
  Element padding;  // what a pixel of the zero point becomes
  void operator()(int64_t m, int64_t k, const uint8_t* src, int64_t src_stride, Element* dst,
                  int64_t dst_stride) const {
    lhs.prepare(m, k, k, src, src_stride, zero_point, dst, dst_stride);
  }
};

// Gathered rows would be the input itself.
bool is_pointwise(const ConvAttrs& conv, const WindowShape& s) {
  for (int a = 0; a < kSpatial; ++a)
    if (conv.window.kernel[a] != 1 || conv.window.stride[a] != 1 || s.in[a] != s.out[a] ||
        s.pad_begin[a] != 0)
      return false;
  return true;
}

class ConvF32 final : public Op {
 public:
  ConvAttrs conv;
  GemmF32Plan plan{};
  size_t group_bytes = 0;  // of the packed weights of a group
  GemmF32Sparse sparse;

  Status bind(BindContext& context) const override {
    ConvShape shape;
    LEPTON_RETURN_IF_ERROR(resolve_conv(conv, context.input(0).shape, &shape));
    LEPTON_RETURN_IF_ERROR(expect_residual(context, kFloatResidual, shape.y));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.y));
    const bool direct = is_pointwise(conv, shape.window);
    const GemmGrid cut = cut_into_chunks(shape.rows(), !direct, context.threads());
    ConvGrid grid(conv, shape, cut, plan.k, sizeof(float), sizeof(float));
    if (direct) grid.rows = 0;
    if (plan.sparse == nullptr) grid.partial = partial_floats(cut) * sizeof(float);
    context.set_scratch(grid.bytes(context.threads()));
    const bool has_residual = context.num_inputs() > kFloatResidual;
    if (has_residual) context.allow_in_place(0, kFloatResidual);
    context.set_run([this, shape, grid, has_residual](const RunArgs& args) {
      return run(shape, grid, has_residual ? args.input<float>(kFloatResidual) : nullptr, args);
    });
    return {};
  }

 private:
  GemmGrid cut_into_chunks(size_t rows, bool gathered, int threads) const {
    if (plan.sparse == nullptr)
      return gemm_f32_grid(*plan.kernel, rows, plan.n, plan.k, gathered, threads);
    return gemm_grid(rows, gemm_panels(*plan.kernel, plan.n), plan.kernel->mr,
                     plan.k * sizeof(float), threads);
  }

  size_t partial_floats(const GemmGrid& cut) const {
    return plan.rounds_rows ? gemm_bf16_partial(*plan.bf16, cut, plan.k)
                            : gemm_f32_partial(*plan.kernel, cut, plan.k);
  }

  Status run(const ConvShape& shape, const ConvGrid& grid, const float* residual,
             const RunArgs& args) const {
    const float* x = grid.input<float>(conv, shape, args);
    const bool direct = is_pointwise(conv, shape.window);
    const Gather<CopyF32> gather(conv, shape, grid.row_stride, CopyF32{});
    const float* const images = grid.padded_input(CopyF32{}, x, args);
    const int64_t channels = conv.out_channels;
    float* dst = args.output<float>(0);
    grid.for_each_chunk(conv.group, args, [&](int64_t g, const GemmChunk& c, int thread) {
      const int64_t row = static_cast<int64_t>(c.row), column = g * conv.out_per_group();
      GemmF32Plan p = plan;
      p.packed = static_cast<const std::byte*>(plan.packed) + g * group_bytes;
      if (p.bias != nullptr) p.bias += column;
      GemmF32Block block{};
      block.m = c.rows;
      if (direct) {
        block.rows = x + row * conv.in_channels + g * conv.in_per_group();
        block.row_stride = conv.in_channels;
      } else {
        float* rows = grid.rows_of<float>(args, thread);
        if (images != nullptr)
          grid.padded.gather(images, row, c.rows, rows, grid.row_stride);
        else
          gather(x, g, row, c.rows, rows);
        block.rows = rows;
        block.row_stride = grid.row_stride;
      }
      block.first = c.first;
      block.last = c.last;
      block.residual = residual == nullptr ? nullptr : residual + row * channels + column;
      block.dst = dst + row * channels + column;
      block.residual_stride = block.dst_stride = channels;
      block.partial = grid.partial_of(args, thread);
      gemm_f32_block(p, block);
    });
    return {};
  }
};

class ConvS8 final : public Op {
 public:
  ConvAttrs conv;
  ConvQuantization q;
  GemmS8Plan plan{};
  GemmS8Sparse sparse;
  GemmS8Layout weights;  // of a group
  GemmS8Lhs lhs;
  GemmS8WindowsKernel windows_kernel = nullptr;  // where there is one

  Status bind(BindContext& context) const override {
    ConvShape shape;
    LEPTON_RETURN_IF_ERROR(resolve_conv(conv, context.input(0).shape, &shape));
    if (q.zero_point_at_run && context.input(kConvZeroPoint).shape.elements() != 1)
      return unsupported("an x_zero_point that is not one value");
    LEPTON_RETURN_IF_ERROR(expect_residual(context, kConvResidual, shape.y));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.y));
    const ConvGrid grid = cut_into_chunks(shape, context.threads());
    if (conv.planar && !grid.windows) return invalid_model("planes cannot be read by this window");
    context.set_scratch(grid.bytes(context.threads()));
    const bool has_residual = adds_bytes(q.kind);
    if (has_residual) context.allow_in_place(0, kConvResidual);
    context.set_run([this, shape, grid, has_residual](const RunArgs& args) {
      return run(shape, grid, has_residual ? args.input<uint8_t>(kConvResidual) : nullptr, args);
    });
    return {};
  }

 private:
  ConvGrid cut_into_chunks(const ConvShape& shape, int threads) const {
    const size_t panels = gemm_panels(*plan.kernel, plan.n), element = gemm_element(*plan.kernel);
    ConvWindows windows;
    if (windows_kernel != nullptr)
      windows = ConvWindows(conv, shape, static_cast<size_t>(plan.kernel->kr));
    const size_t kept = windows ? windows.bytes_per_pixel() : 0;
    const GemmGrid chunks =
        gemm_grid(shape.rows(), panels, plan.kernel->mr, lhs.row_bytes(plan.k), threads, kept);
    ConvGrid grid(conv, shape, chunks, lhs.row_stride(plan.k), 1, element);
    if (windows && (conv.planar || chunks.chunks() > 0)) grid.use(windows);
    return grid;
  }

  int32_t zero_point(const RunArgs& args) const {
    if (!q.zero_point_at_run) return q.x_zero_point;
    return q.x_signed ? *args.input<int8_t>(kConvZeroPoint) : *args.input<uint8_t>(kConvZeroPoint);
  }

  Status run(const ConvShape& shape, const ConvGrid& grid, const uint8_t* residual,
             const RunArgs& args) const {
    lhs.is_u8() ? multiply<uint8_t>(shape, grid, residual, args)
                : multiply<int16_t>(shape, grid, residual, args);
    return {};
  }

  // A kernel that reads windows has operands of form u8.
  GemmS8Windows fill_windows(const ConvWindows& windows, int32_t zero, const uint8_t* x,
                             int64_t first, size_t count, std::byte* memory) const {
    const auto padding = static_cast<uint8_t>(lhs.zero_point_left(zero));
    const CopyPrepared<uint8_t> copy{lhs, zero, padding};
    return {windows_kernel, windows.fill(copy, x, first, static_cast<int64_t>(count), memory),
            windows.runs(), windows.run(), windows.pitch()};
  }

  template <typename Element>
  void multiply(const ConvShape& shape, const ConvGrid& grid, const uint8_t* residual,
                const RunArgs& args) const {
    const uint8_t* x = grid.input<uint8_t>(conv, shape, args);
    const int32_t zero = zero_point(args), left = lhs.zero_point_left(zero);
    const CopyPrepared<Element> copy{lhs, zero, static_cast<Element>(left)};
    const Gather<CopyPrepared<Element>> gather(conv, shape, grid.row_stride, copy);
    const Element* const images = grid.padded_input(copy, x, args);
    const bool direct = is_pointwise(conv, shape.window) && lhs.reads_in_place(plan.k);
    const int64_t channels = conv.out_channels;
    uint8_t* dst = args.output<uint8_t>(0);
    grid.for_each_chunk(conv.group, args, [&](int64_t g, const GemmChunk& c, int thread) {
      const int64_t row = static_cast<int64_t>(c.row), column = g * conv.out_per_group();
      GemmS8Plan p = plan;
      p.packed += g * weights.matrix_bytes;
      p.zero_point = left;
      if (p.bias != nullptr) p.bias += column;
      if (p.scale != nullptr) p.scale += column;
      GemmS8Block block{};
      block.m = c.rows;
      GemmS8Windows windows{};
      if (direct) {
        block.rows = x + row * conv.in_channels + g * conv.in_per_group();
        block.row_stride = conv.in_channels;
      } else if (grid.windows) {
        auto* const memory = grid.rows_of<std::byte>(args, thread);
        windows = fill_windows(grid.windows, zero, x, row, c.rows, memory);
        block.windows = &windows;
      } else {
        Element* rows = grid.rows_of<Element>(args, thread);
        if (images != nullptr)
          grid.padded.gather(images, row, c.rows, rows, grid.row_stride);
        else
          gather(x, g, row, c.rows, rows);
        block.rows = rows;
        block.row_stride = grid.row_stride;
      }
      const int64_t first = row * channels + column;
      block.first = c.first;
      block.last = c.last;
      block.residual = residual == nullptr ? nullptr : residual + first;
      block.dst = dst + first * static_cast<int64_t>(q.dst_size);
      block.residual_stride = block.dst_stride = channels;
      if (grid.grid.is_last(c)) block.ahead = args.ahead;
      gemm_s8_block(p, block);
    });
  }
};

// Takes the packed weights of all groups. Kernel: the one that they are packed for.
template <typename Kernel>
Status read_packed(const StepDesc& step, const ConvAttrs& conv, const Kernel& kernel, ConvF32* op) {
  op->plan.k = conv.depth();
  op->plan.n = conv.out_per_group();
  LEPTON_RETURN_IF_ERROR(
      gemm_packed_size(kernel, conv.depth(), conv.out_per_group(), &op->group_bytes));
  if (op->group_bytes > static_cast<size_t>(kMaxElements) / conv.group)
    return invalid_model("packed W is too large");
  LEPTON_RETURN_IF_ERROR(expect_blob(step.inputs[1], op->group_bytes * conv.group));
  op->plan.packed = step.inputs[1].data;
  return {};
}

Status read_packed(const StepDesc& step, const ConvAttrs& conv, GemmS8Plan* plan,
                   GemmS8Layout* layout) {
  plan->k = conv.depth();
  plan->n = conv.out_per_group();
  const TensorInfo& w = step.inputs[1];
  const size_t bytes = static_cast<size_t>(w.shape.elements());
  LEPTON_RETURN_IF_ERROR(expect_blob(w, bytes));
  LEPTON_RETURN_IF_ERROR(check_packed_s8(*plan->kernel, conv.depth(), conv.out_per_group(),
                                         conv.group, w.data, bytes, layout));
  plan->packed = static_cast<const std::byte*>(w.data);
  plan->panel_stride = layout->panel_stride;
  return {};
}

template <typename Conv>
Status read_sparse(const StepDesc& step, const ConvAttrs& conv, Conv* op) {
  if (conv.group != 1) return unsupported("groups of sparse weights");
  op->plan.k = conv.depth();
  op->plan.n = conv.out_per_group();
  op->plan.sparse = &op->sparse;
  return take_sparse(step.kernel, step.inputs[1], op->plan.k, op->plan.n, &op->sparse);
}

// Dense weights, kept as bfloat16 or not, or sparse ones, as the step's kernel says.
Status read_weights(const StepDesc& step, const ConvAttrs& conv, ConvF32* op) {
  if (find_sparse(step.kernel, &op->plan.kernel)) return read_sparse(step, conv, op);
  op->plan.bf16 = find_gemm_bf16(step.kernel, &op->plan.kernel);
  if (op->plan.bf16 != nullptr) {
    // Bands of an image may have few rows: all are rounded, then none depends on the bands.
    op->plan.rounds_rows = op->plan.bf16->pairs != nullptr;
    return read_packed(step, conv, *op->plan.bf16, op);
  }
  op->plan.kernel = gemm_f32_kernels().find(step.kernel);
  if (op->plan.kernel == nullptr)
    return unsupported("kernel " + std::string(step.kernel) + " cannot run here");
  return read_packed(step, conv, *op->plan.kernel, op);
}

Status read_weights(const StepDesc& step, const ConvAttrs& conv, ConvS8* op) {
  if (find_sparse(step.kernel, &op->plan.kernel)) return read_sparse(step, conv, op);
  op->plan.kernel = gemm_s8_kernels().find(step.kernel);
  if (op->plan.kernel == nullptr)
    return unsupported("kernel " + std::string(step.kernel) + " cannot run here");
  return read_packed(step, conv, &op->plan, &op->weights);
}

}  // namespace

Status make_gemm_conv_f32(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out) {
  auto op = std::make_unique<ConvF32>();
  op->conv = conv;
  LEPTON_RETURN_IF_ERROR(read_weights(step, conv, op.get()));
  if (step.has_input(kConvBias))
    op->plan.bias = static_cast<const float*>(step.inputs[kConvBias].data);
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &op->plan.min, &op->plan.max));
  op->plan.epilogue = best_epilogue_f32(step.isa);
  *out = std::move(op);
  return {};
}

Status make_gemm_conv_s8(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out) {
  auto op = std::make_unique<ConvS8>();
  op->conv = conv;
  LEPTON_RETURN_IF_ERROR(parse_conv_quantization(step, conv, &op->q));
  op->conv.planar = step.attrs->i("planar", 0) != 0;
  if (op->conv.planar && (conv.channels_last || conv.group != 1))
    return invalid_model("planar convolutions take X in channels-first, in one group");
  GemmS8Plan& plan = op->plan;
  LEPTON_RETURN_IF_ERROR(read_weights(step, op->conv, op.get()));
  if (step.has_input(kConvBias))
    plan.bias = static_cast<const int32_t*>(step.inputs[kConvBias].data);
  if (step.has_input(kConvScale) && op->q.kind != EpilogueS8Kind::kS32)
    plan.scale = static_cast<const float*>(step.inputs[kConvScale].data);
  plan.epilogue = op->q.epilogue;
  plan.requantize = op->q.requantize;
  plan.min = op->q.min;
  plan.max = op->q.max;
  plan.r_signed = op->q.r_signed;
  plan.sums = op->q.kind == EpilogueS8Kind::kRequantizeSum;
  plan.dst_size = op->q.dst_size;
  op->lhs = GemmS8Lhs(*plan.kernel, op->q.x_signed, step.isa);
  const GemmS8WindowsKernelInfo* const windows = find_gemm_s8_windows(*plan.kernel);
  if (windows != nullptr && plan.sparse == nullptr) op->windows_kernel = windows->run;
  *out = std::move(op);
  return {};
}

Status make_conv(const StepDesc& step, std::unique_ptr<Op>* out) {
  ConvAttrs conv;
  LEPTON_RETURN_IF_ERROR(parse_conv(*step.attrs, step.isa, &conv));
  if (step.inputs.size() < 2 || step.inputs.size() > 4 || step.outputs.size() != 1)
    return invalid_model("lepton.Conv takes X, W, bias, residual");
  if (step.inputs[0].dtype != DType::kF32 || step.outputs[0] != DType::kF32 ||
      (step.has_input(kFloatResidual) && step.inputs[kFloatResidual].dtype != DType::kF32))
    return unsupported("a float convolution of " + std::string(name_of(step.inputs[0].dtype)));
  if (step.has_input(kConvBias))
    LEPTON_RETURN_IF_ERROR(
        expect_vector(step.inputs[kConvBias], DType::kF32, conv.out_channels, "bias"));
  if (step.attrs->has("winograd")) return make_winograd_conv_f32(step, conv, out);
  const bool depthwise = depthwise_f32_kernels().describe(step.kernel) != nullptr;
  return (depthwise ? make_depthwise_f32 : make_gemm_conv_f32)(step, conv, out);
}

Status make_qlinear_conv(const StepDesc& step, std::unique_ptr<Op>* out) {
  ConvAttrs conv;
  LEPTON_RETURN_IF_ERROR(parse_conv(*step.attrs, step.isa, &conv));
  if (step.attrs->has("winograd")) return make_winograd_conv_s8(step, conv, out);
  const bool depthwise = depthwise_s8_kernels().describe(step.kernel) != nullptr;
  return (depthwise ? make_depthwise_s8 : make_gemm_conv_s8)(step, conv, out);
}

}  // namespace lepton
