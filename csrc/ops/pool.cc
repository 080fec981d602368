// MaxPool, AveragePool, LpPool and their global forms: N, C, spatial… under the ONNX names,
// N, spatial…, C under lepton.*. Channels-last maxima and averages run on the kernels of pool.h
// over lists of tap pointers, one output row a chunk; everything else takes the strided loop below.
#include "ops/pool.h"

#include <cmath>
#include <limits>
#include <string>

#include "ops/pool_geometry.h"
#include "ops/window_kernels.h"
#include "ops/window_taps.h"

namespace lepton {
namespace {

enum class Reduction : uint8_t { kMax, kAverage, kLp };

// One plane (image and channel) in either layout: pixels `step` elements apart.
struct Plane {
  const Window& w;
  const WindowShape& s;
  int64_t step;
  bool count_include_pad;
  float p;
};

template <typename F>
void for_each_tap(const Plane& a, const int64_t (&o)[kSpatial], const F& body) {
  TapRange r[kSpatial];
  int64_t origin[kSpatial];
  for (int i = 0; i < kSpatial; ++i) {
    origin[i] = o[i] * a.w.stride[i] - a.s.pad_begin[i];
    r[i] = taps_inside(origin[i], a.w.kernel[i], a.w.dilation[i], a.s.in[i]);
  }
  for (int64_t i = r[0].first; i < r[0].last; ++i) {
    for (int64_t j = r[1].first; j < r[1].last; ++j) {
      const int64_t row =
          ((origin[0] + i * a.w.dilation[0]) * a.s.in[1] + origin[1] + j * a.w.dilation[1]) *
              a.s.in[2] +
          origin[2];
      for (int64_t k = r[2].first; k < r[2].last; ++k) body((row + k * a.w.dilation[2]) * a.step);
    }
  }
}

struct MaxOf {
  template <typename T>
  static T reduce(const Plane& a, const int64_t (&o)[kSpatial], const T* x) {
    T m = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                               : std::numeric_limits<T>::lowest();
    for_each_tap(a, o, [&](int64_t i) { m = x[i] > m ? x[i] : m; });
    return m;
  }
};
struct AverageOf {
  static float reduce(const Plane& a, const int64_t (&o)[kSpatial], const float* x) {
    float sum = 0.f;
    int64_t inside = 0;
    for_each_tap(a, o, [&](int64_t i) { sum += x[i], ++inside; });
    return sum / static_cast<float>(a.count_include_pad ? padded_cells(a.w, a.s, o) : inside);
  }
};
struct LpOf {
  static float reduce(const Plane& a, const int64_t (&o)[kSpatial], const float* x) {
    float sum = 0.f;
    if (a.p == 2.f) {
      for_each_tap(a, o, [&](int64_t i) { sum += x[i] * x[i]; });
      return std::sqrt(sum);
    }
    for_each_tap(a, o, [&](int64_t i) { sum += std::pow(std::fabs(x[i]), a.p); });
    return std::pow(sum, 1.f / a.p);
  }
};

template <typename R, typename T>
void pool_plane(const Plane& a, const T* x, T* y) {
  int64_t o[kSpatial];
  for (o[0] = 0; o[0] < a.s.out[0]; ++o[0])
    for (o[1] = 0; o[1] < a.s.out[1]; ++o[1])
      for (o[2] = 0; o[2] < a.s.out[2]; ++o[2], y += a.step) *y = R::reduce(a, o, x);
}

struct Pooling {
  Window window;
  WindowShape shape;
  int64_t batch, channels;
  bool channels_last, count_include_pad;
  float p;
};

template <typename R, typename T>
Status run_planes(const Pooling& a, const RunArgs& args) {
  const Plane plane{a.window, a.shape, a.channels_last ? a.channels : 1, a.count_include_pad, a.p};
  const int64_t in = a.shape.in_pixels(), out = a.shape.out_pixels();
  args.parallel.loop(a.batch * a.channels, [&](int64_t i, int) {
    const int64_t n = i / a.channels, c = i % a.channels;
    const int64_t x = a.channels_last ? n * in * a.channels + c : i * in;
    const int64_t y = a.channels_last ? n * out * a.channels + c : i * out;
    pool_plane<R, T>(plane, args.input<T>(0) + x, args.output<T>(0) + y);
  });
  return {};
}

// Channels-last through a kernel: T is the element type of both sides.
template <typename T>
Status run_rows(const Pooling& a, PoolKernel kernel, const RunArgs& args) {
  const Window& w = a.window;
  const WindowShape& s = a.shape;
  const size_t taps = most_taps(w, s);
  args.parallel.loop(a.batch * s.out[0] * s.out[1], [&](int64_t r, int thread) {
    const OutputRow row = output_row(s, r);
    const T* image = args.input<T>(0) + row.n * s.in_pixels() * a.channels;
    T* dst = args.output<T>(0) + r * s.out[2] * a.channels;
    TapList<T> list =
        tap_list_at<T>(args.scratch + thread * thread_share(tap_list_bytes(taps)), taps);
    for_each_run(w, s, [&](int64_t first, int64_t count) {
      list_taps<T>(w, s, image, a.channels, row.od, row.oh, first, nullptr, &list);
      PoolParams p{};
      p.channels = static_cast<size_t>(a.channels);
      p.taps = list.taps;
      p.pixels = static_cast<size_t>(count);
      p.input = reinterpret_cast<const void* const*>(list.input);
      p.input_step = list.step;
      p.divisor =
          static_cast<float>(a.count_include_pad ? padded_cells(w, s, {row.od, row.oh, first})
                                                 : static_cast<int64_t>(list.taps));
      p.dst = dst + first * a.channels;
      p.dst_step = p.channels;
      kernel(p);
    });
  });
  return {};
}

class PoolOp final : public Op {
 public:
  Reduction reduction;
  DType dtype;
  bool channels_last;
  float p;
  PoolWindow pool;
  PoolKernel kernel = nullptr;  // channels-last maxima and averages

  Status bind(BindContext& context) const override {
    const Shape& x = context.input(0).shape;
    Pooling a{};
    LEPTON_RETURN_IF_ERROR(resolve_pool(pool, x, channels_last, &a.window, &a.shape));
    a.batch = batch_of(x);
    a.channels = channels_of(x, channels_last);
    a.channels_last = channels_last;
    a.count_include_pad = pool.count_include_pad;
    a.p = p;
    const Shape y = pool_output(pool, a.window, a.shape, x, channels_last);
    if (!is_valid(y)) return invalid_input("the pooled tensor would be too large");
    LEPTON_RETURN_IF_ERROR(context.set_output(0, y));
    if (y.elements() == 0) {
      context.set_run([](const RunArgs&) { return Status(); });
      return {};
    }
    set_closure(context, a);
    return {};
  }

 private:
  void set_closure(BindContext& context, const Pooling& a) const {
    if (kernel != nullptr) {
      context.set_scratch(context.threads() *
                          thread_share(tap_list_bytes(most_taps(a.window, a.shape))));
      const PoolKernel k = kernel;
      if (dtype == DType::kF32)
        context.set_run([a, k](const RunArgs& args) { return run_rows<float>(a, k, args); });
      else
        context.set_run([a, k](const RunArgs& args) { return run_rows<uint8_t>(a, k, args); });
      return;
    }
    if (reduction == Reduction::kAverage)
      context.set_run([a](const RunArgs& args) { return run_planes<AverageOf, float>(a, args); });
    else if (reduction == Reduction::kLp)
      context.set_run([a](const RunArgs& args) { return run_planes<LpOf, float>(a, args); });
    else if (dtype == DType::kF32)
      context.set_run([a](const RunArgs& args) { return run_planes<MaxOf, float>(a, args); });
    else if (dtype == DType::kU8)
      context.set_run([a](const RunArgs& args) { return run_planes<MaxOf, uint8_t>(a, args); });
    else
      context.set_run([a](const RunArgs& args) { return run_planes<MaxOf, int8_t>(a, args); });
  }
};

PoolKernel choose_kernel(const PoolOp& op, Isa isa) {
  if (!op.channels_last || op.reduction == Reduction::kLp) return nullptr;
  if (op.reduction == Reduction::kAverage) return best_pool(PoolKind::kAverageF32, isa);
  if (op.dtype == DType::kF32) return best_pool(PoolKind::kMaxF32, isa);
  return best_pool(op.dtype == DType::kU8 ? PoolKind::kMaxU8 : PoolKind::kMaxS8, isa);
}

}  // namespace

Status make_pool(const StepDesc& step, std::unique_ptr<Op>* out) {
  std::string_view name = step.op;
  auto op = std::make_unique<PoolOp>();
  const std::string_view prefix = "lepton.", global = "Global";
  op->channels_last = name.substr(0, prefix.size()) == prefix;
  if (op->channels_last) name.remove_prefix(prefix.size());
  const bool is_global = name.substr(0, global.size()) == global;
  if (is_global) name.remove_prefix(global.size());
  op->reduction = name == "MaxPool"       ? Reduction::kMax
                  : name == "AveragePool" ? Reduction::kAverage
                                          : Reduction::kLp;
  if (step.inputs.size() != 1 || step.outputs.empty() || !step.has_input(0))
    return invalid_model("a pool takes one input and gives one output");
  if (step.outputs.size() > 1 && step.outputs[1] != DType::kUndefined)
    return unsupported("Indices of MaxPool");
  op->dtype = step.inputs[0].dtype;
  const bool is_8_bit = op->dtype == DType::kU8 || op->dtype == DType::kS8;
  if (op->dtype != DType::kF32 && !(is_8_bit && op->reduction == Reduction::kMax))
    return unsupported("pooling of " + std::string(name_of(op->dtype)));
  if (step.outputs[0] != op->dtype) return invalid_model("a pool keeps its input's dtype");
  op->p = static_cast<float>(step.attrs->i("p", 2));
  if (op->p < 1.f) return invalid_model("p must be at least 1");
  LEPTON_RETURN_IF_ERROR(parse_pool_window(*step.attrs, is_global, &op->pool));
  op->kernel = choose_kernel(*op, step.isa);
  *out = std::move(op);
  return {};
}

}  // namespace lepton
