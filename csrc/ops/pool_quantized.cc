// lepton.QLinearAveragePool and lepton.QLinearReduceMean: u8/s8 in and out, channels-last.
// Inputs: X. Attributes: x_scale, y_scale (floats), x_zero_point, y_zero_point (ints), and those of
// AveragePool, or axes (a contiguous block, may be negative) and keepdims. The definition is in
// pool.h.
#include <cmath>
#include <string>

#include "ops/gemm.h"
#include "ops/pool_geometry.h"
#include "ops/window_kernels.h"
#include "ops/window_taps.h"

namespace lepton {
namespace {

struct QuantizedPool {
  PoolKernel sum;
  EpilogueS8Kernel epilogue;
  Requantize requantize;
  float x_scale, y_scale;
  int32_t x_zero_point;
};

Status read_quantization(const StepDesc& step, QuantizedPool* q) {
  if (step.inputs.size() != 1 || !step.has_input(0) || step.outputs.size() != 1)
    return invalid_model("a quantised average takes one input and gives one output");
  const DType in = step.inputs[0].dtype, out = step.outputs[0];
  if ((in != DType::kU8 && in != DType::kS8) || (out != DType::kU8 && out != DType::kS8))
    return unsupported("a quantised average of " + std::string(name_of(in)) + " to " +
                       std::string(name_of(out)));
  const Attrs& attrs = *step.attrs;
  q->x_scale = attrs.f("x_scale", 1.f);
  q->y_scale = attrs.f("y_scale", 1.f);
  if (!(q->x_scale > 0.f) || !(q->y_scale > 0.f) || !std::isfinite(q->x_scale) ||
      !std::isfinite(q->y_scale))
    return invalid_model("scales must be positive and finite");
  const int64_t x_lo = in == DType::kU8 ? 0 : -128, y_lo = out == DType::kU8 ? 0 : -128;
  const int64_t x_zero_point = attrs.i("x_zero_point", 0);
  const int64_t y_zero_point = attrs.i("y_zero_point", 0);
  if (x_zero_point < x_lo || x_zero_point > x_lo + 255 || y_zero_point < y_lo ||
      y_zero_point > y_lo + 255)
    return invalid_model("a zero point is out of its type's range");
  q->x_zero_point = static_cast<int32_t>(x_zero_point);
  q->requantize.zero_point = static_cast<int32_t>(y_zero_point);
  q->requantize.lo = static_cast<int32_t>(y_lo);
  q->requantize.hi = static_cast<int32_t>(y_lo + 255);
  q->sum = best_pool(in == DType::kU8 ? PoolKind::kSumU8 : PoolKind::kSumS8, step.isa);
  q->epilogue = best_epilogue_s8(EpilogueS8Kind::kRequantize, step.isa);
  return {};
}

// One thread's scratch: tap list, sums of a few pixels, and the scale of every channel.
struct Scratch {
  size_t taps, sums, scales;  // offsets of the last two: taps, taps + sums
  size_t bytes() const { return thread_share(taps + sums + scales); }
};
// Pixels summed before they are requantised, so that the sums stay in L1.
int64_t pixels_at_once(int64_t channels) {
  return std::max<int64_t>(1, 2048 / std::max<int64_t>(channels, 1));
}
Scratch scratch_of(size_t taps, int64_t channels) {
  const size_t sums = pixels_at_once(channels) * channels * sizeof(int32_t);
  return {tap_list_bytes(taps), round_up(sums, kCacheLine),
          round_up(channels * sizeof(float), kCacheLine)};
}

struct Averaging {
  QuantizedPool q;
  Window window;
  WindowShape shape;
  int64_t batch, channels;
  bool count_include_pad;
};

// A run of pixels whose taps are listed; scales must hold the scale of each channel.
void average_run(const Averaging& a, const TapList<uint8_t>& list, int64_t count, int32_t* sums,
                 const float* scales, uint8_t* dst) {
  const size_t channels = static_cast<size_t>(a.channels);
  PoolParams p{};
  p.channels = channels;
  p.taps = list.taps;
  p.input = reinterpret_cast<const void* const*>(list.input);
  p.input_step = list.step;
  p.bias = -static_cast<int32_t>(list.taps) * a.q.x_zero_point;
  p.dst = sums;
  p.dst_step = channels;
  EpilogueS8Params e{};
  e.n = channels;
  e.acc = sums;
  e.acc_stride = channels;
  e.scale = scales;
  e.requantize = a.q.requantize;
  e.dst_stride = channels;
  const int64_t step = pixels_at_once(a.channels);
  for (int64_t i = 0; i < count; i += step) {
    p.pixels = e.m = static_cast<size_t>(std::min(step, count - i));
    a.q.sum(p);
    e.dst = dst + i * a.channels;
    a.q.epilogue(e);
    for (size_t t = 0; t < list.taps; ++t) list.input[t] += step * list.step[t];
  }
}

Status run_average(const Averaging& a, const RunArgs& args) {
  const WindowShape& s = a.shape;
  const size_t taps = most_taps(a.window, s);
  const Scratch layout = scratch_of(taps, a.channels);
  args.parallel.loop(a.batch * s.out[0] * s.out[1], [&](int64_t r, int thread) {
    std::byte* scratch = args.scratch + thread * layout.bytes();
    TapList<uint8_t> list = tap_list_at<uint8_t>(scratch, taps);
    auto* sums = reinterpret_cast<int32_t*>(scratch + layout.taps);
    auto* scales = reinterpret_cast<float*>(scratch + layout.taps + layout.sums);
    const OutputRow row = output_row(s, r);
    const uint8_t* image = args.input<uint8_t>(0) + row.n * s.in_pixels() * a.channels;
    uint8_t* dst = args.output<uint8_t>(0) + r * s.out[2] * a.channels;
    int64_t scaled_for = -1;
    for_each_run(a.window, s, [&](int64_t first, int64_t count) {
      list_taps<uint8_t>(a.window, s, image, a.channels, row.od, row.oh, first, nullptr, &list);
      const int64_t cells = a.count_include_pad ? padded_cells(a.window, s, {row.od, row.oh, first})
                                                : static_cast<int64_t>(list.taps);
      if (cells != scaled_for)
        std::fill_n(scales, a.channels, a.q.x_scale / (a.q.y_scale * static_cast<float>(cells)));
      scaled_for = cells;
      average_run(a, list, count, sums, scales, dst + first * a.channels);
    });
  });
  return {};
}

Status bind_average(BindContext& context, const Averaging& a, const Shape& y) {
  if (!is_valid(y)) return invalid_input("the pooled tensor would be too large");
  LEPTON_RETURN_IF_ERROR(context.set_output(0, y));
  if (y.elements() == 0) {
    context.set_run([](const RunArgs&) { return Status(); });
    return {};
  }
  const size_t per_thread = scratch_of(most_taps(a.window, a.shape), a.channels).bytes();
  context.set_scratch(context.threads() * per_thread);
  context.set_run([a](const RunArgs& args) { return run_average(a, args); });
  return {};
}

class QLinearAveragePool final : public Op {
 public:
  QuantizedPool q;
  PoolWindow pool;

  Status bind(BindContext& context) const override {
    const Shape& x = context.input(0).shape;
    Averaging a{};
    LEPTON_RETURN_IF_ERROR(resolve_pool(pool, x, true, &a.window, &a.shape));
    a.q = q;
    a.batch = batch_of(x);
    a.channels = channels_of(x, true);
    a.count_include_pad = pool.count_include_pad;
    return bind_average(context, a, pool_output(pool, a.window, a.shape, x, true));
  }
};

// The mean over a block of axes is a global pool of [outer, reduced, inner].
class QLinearReduceMean final : public Op {
 public:
  QuantizedPool q;
  std::vector<int64_t> axes;
  bool keepdims;

  Status bind(BindContext& context) const override {
    const Shape& x = context.input(0).shape;
    int first = 0, last = 0;
    LEPTON_RETURN_IF_ERROR(block_of_axes(x, &first, &last));
    Averaging a{};
    a.q = q;
    a.batch = x.product(0, first);
    a.channels = x.product(last, x.rank);
    const int64_t cells = x.product(first, last);
    if (cells >= kMaxPoolTaps) return unsupported("a mean over so many cells");
    a.window.rank = 1;
    a.window.kernel[2] = std::max<int64_t>(cells, 1);
    a.shape.in[2] = cells;
    if (cells == 0) return unsupported("a mean over no cells");
    Shape y;
    for (int i = 0; i < x.rank; ++i) {
      const bool reduced = i >= first && i < last;
      if (!reduced || keepdims) y.push_back(reduced ? 1 : x[i]);
    }
    return bind_average(context, a, y);
  }

 private:
  Status block_of_axes(const Shape& x, int* first, int* last) const {
    bool reduced[kMaxRank] = {};
    for (int64_t axis : axes) {
      if (axis < -x.rank || axis >= x.rank) return invalid_model("an axis is out of range");
      reduced[axis < 0 ? axis + x.rank : axis] = true;
    }
    if (axes.empty())
      for (int i = 0; i < x.rank; ++i) reduced[i] = true;
    int i = 0;
    while (i < x.rank && !reduced[i]) ++i;
    *first = i;
    while (i < x.rank && reduced[i]) ++i;
    *last = i;
    while (i < x.rank && !reduced[i]) ++i;
    return i == x.rank ? Status() : unsupported("axes that are not neighbours");
  }
};

}  // namespace

Status make_qlinear_average_pool(const StepDesc& step, std::unique_ptr<Op>* out) {
  auto op = std::make_unique<QLinearAveragePool>();
  LEPTON_RETURN_IF_ERROR(read_quantization(step, &op->q));
  LEPTON_RETURN_IF_ERROR(parse_pool_window(*step.attrs, false, &op->pool));
  *out = std::move(op);
  return {};
}

Status make_qlinear_reduce_mean(const StepDesc& step, std::unique_ptr<Op>* out) {
  auto op = std::make_unique<QLinearReduceMean>();
  LEPTON_RETURN_IF_ERROR(read_quantization(step, &op->q));
  const Attrs::Ints axes = step.attrs->ints("axes");
  if (axes.size > kMaxRank) return invalid_model("too many axes");
  op->axes.assign(axes.data, axes.data + axes.size);
  op->keepdims = step.attrs->i("keepdims", 1) != 0;
  *out = std::move(op);
  return {};
}

}  // namespace lepton
