// LRN (N, C, spatial…) and lepton.LRN (N, spatial…, C), float32:
//   y[c] = x[c] / (bias + alpha / size · sum of x² over channels c − (size−1)/2 … c + size/2)^beta
// The sum over the window is taken anew for each channel: windows are about five wide, and a
// running sum would drift.
#include <algorithm>
#include <cmath>
#include <string>

#include "ops/op.h"

namespace lepton {
namespace {

constexpr int64_t kBlock = 256;  // pixels a chunk normalises at once

struct Normalization {
  int64_t size;
  float scale, beta, bias;  // scale = alpha / size

  float denominator(float sum) const {
    const float base = bias + scale * sum;
    if (beta != 0.75f) return std::pow(base, beta);
    const float root = std::sqrt(base);
    return root * std::sqrt(root);
  }
  int64_t first(int64_t c) const { return std::max<int64_t>(0, c - (size - 1) / 2); }
  int64_t last(int64_t c, int64_t channels) const { return std::min(channels, c + size / 2 + 1); }
};

void normalize_pixel(const Normalization& a, const float* x, int64_t channels, float* y) {
  for (int64_t c = 0; c < channels; ++c) {
    float sum = 0.f;
    for (int64_t i = a.first(c); i < a.last(c, channels); ++i) sum += x[i] * x[i];
    y[c] = x[c] / a.denominator(sum);
  }
}

// `count` neighbouring pixels of channel c; x, y point at channel 0 of the first pixel.
void normalize_block(const Normalization& a, const float* x, int64_t channels, int64_t pixels,
                     int64_t c, int64_t count, float* y) {
  float sums[kBlock] = {};
  for (int64_t i = a.first(c); i < a.last(c, channels); ++i)
    for (int64_t p = 0; p < count; ++p) sums[p] += x[i * pixels + p] * x[i * pixels + p];
  for (int64_t p = 0; p < count; ++p)
    y[c * pixels + p] = x[c * pixels + p] / a.denominator(sums[p]);
}

class Lrn final : public Op {
 public:
  Normalization a;
  bool channels_last;

  Status bind(BindContext& context) const override {
    const Shape& x = context.input(0).shape;
    if (x.rank < 2) return invalid_input("LRN does not fit a tensor of shape " + x.str());
    LEPTON_RETURN_IF_ERROR(context.set_output(0, x));
    const int64_t channels = x[channels_last ? x.rank - 1 : 1], batch = x[0];
    const int64_t pixels = channels_last ? x.product(1, x.rank - 1) : x.product(2, x.rank);
    const Normalization n = a;
    if (channels_last)
      context.set_run([n, channels, rows = batch * pixels](const RunArgs& args) {
        return run_channels_last(n, channels, rows, args);
      });
    else
      context.set_run([n, channels, batch, pixels](const RunArgs& args) {
        return run_channels_first(n, batch, channels, pixels, args);
      });
    return {};
  }

 private:
  static Status run_channels_last(const Normalization& a, int64_t channels, int64_t rows,
                                  const RunArgs& args) {
    const float* x = args.input<float>(0);
    float* y = args.output<float>(0);
    constexpr int64_t kRows = 32;
    args.parallel.loop((rows + kRows - 1) / kRows, [&](int64_t chunk, int) {
      for (int64_t r = chunk * kRows; r < std::min(rows, (chunk + 1) * kRows); ++r)
        normalize_pixel(a, x + r * channels, channels, y + r * channels);
    });
    return {};
  }

  static Status run_channels_first(const Normalization& a, int64_t batch, int64_t channels,
                                   int64_t pixels, const RunArgs& args) {
    const int64_t blocks = (pixels + kBlock - 1) / kBlock;
    args.parallel.loop(batch * blocks, [&](int64_t i, int) {
      const int64_t first = i % blocks * kBlock;
      const int64_t offset = i / blocks * channels * pixels + first;
      for (int64_t c = 0; c < channels; ++c)
        normalize_block(a, args.input<float>(0) + offset, channels, pixels, c,
                        std::min(kBlock, pixels - first), args.output<float>(0) + offset);
    });
    return {};
  }
};

}  // namespace

Status make_lrn(const StepDesc& step, std::unique_ptr<Op>* out) {
  if (step.inputs.size() != 1 || !step.has_input(0) || step.outputs.size() != 1)
    return invalid_model("LRN takes one input and gives one output");
  if (step.inputs[0].dtype != DType::kF32 || step.outputs[0] != DType::kF32)
    return unsupported("LRN of " + std::string(name_of(step.inputs[0].dtype)));
  auto op = std::make_unique<Lrn>();
  op->channels_last = step.op == "lepton.LRN";
  op->a.size = step.attrs->i("size", 0);
  if (op->a.size < 1 || op->a.size > (int64_t{1} << 30))
    return invalid_model("size is missing or out of range");
  op->a.scale = step.attrs->f("alpha", 1e-4f) / static_cast<float>(op->a.size);
  op->a.beta = step.attrs->f("beta", 0.75f);
  op->a.bias = step.attrs->f("bias", 1.f);
  *out = std::move(op);
  return {};
}

}  // namespace lepton
