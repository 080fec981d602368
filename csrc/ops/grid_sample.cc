// GridSample over two spatial dimensions: for every output pixel its taps (offsets and weights)
// once, then all channels. Limited by the gathered loads.
#include <algorithm>
#include <cmath>

#include "ops/movement.h"

namespace lepton {
namespace {

enum class Padding { kZeros, kBorder, kReflection };

// Positions beyond this are as far outside as any; keeps conversions to integers defined.
constexpr float kFar = 1e8f;

// One axis of the image.
struct Axis {
  int64_t length;
  bool align_corners;
  Padding padding;

  float low() const { return align_corners ? 0.f : -0.5f; }
  float high() const { return static_cast<float>(length) - (align_corners ? 1.f : 0.5f); }

  float reflect(float x) const {
    const float range = high() - low();
    if (!(range > 0)) return low();
    const float beyond = x < low() ? low() - x : x > high() ? x - high() : 0.f;
    if (beyond == 0.f) return x;
    const float turns = std::floor(beyond / range);
    const float rest = beyond - turns * range;
    const bool even = std::fmod(turns, 2.f) == 0.f;
    return (x < low()) == even ? low() + rest : high() - rest;
  }

  // Where a coordinate of the grid, in [-1, 1], lies among the pixels.
  float position(float g) const {
    const float n = static_cast<float>(length);
    const float x = align_corners ? (g + 1) / 2 * (n - 1) : ((g + 1) * n - 1) / 2;
    return x < kFar ? std::max(x, -kFar) : x >= kFar ? kFar : -kFar;  // NaN: outside
  }

  float inside(float x) const {
    if (x >= low() && x <= high()) return x;
    if (padding == Padding::kBorder)
      return std::min(std::max(x, 0.f), static_cast<float>(length - 1));
    return padding == Padding::kReflection ? reflect(x) : x;
  }

  // The pixel that stands for position i; -1 where it is a zero.
  int64_t pixel(int64_t i) const {
    if (i >= 0 && i < length) return i;
    if (padding == Padding::kZeros) return -1;
    if (padding == Padding::kReflection) i = static_cast<int64_t>(reflect(static_cast<float>(i)));
    return clamp_index(i, 0, length - 1);
  }
};

struct Taps {
  int count = 0;
  int64_t offset[4];
  float weight[4];
  void add(int64_t row, int64_t column, int64_t width, float w) {
    if (row < 0 || column < 0) return;
    offset[count] = row * width + column;
    weight[count++] = w;
  }
};

class GridSampleOp final : public Op {
 public:
  GridSampleOp(bool nearest, bool align_corners, Padding padding)
      : nearest_(nearest), align_corners_(align_corners), padding_(padding) {}

  Status bind(BindContext& context) const override {
    const Shape x = context.input(0).shape, grid = context.input(1).shape;
    if (x.rank != 4) return unsupported("GridSample over other than two spatial dimensions");
    if (grid.rank != 4 || grid[3] != 2 || grid[0] != x[0])
      return invalid_input("GridSample: a grid " + grid.str() + " for an input " + x.str());
    if (x[2] == 0 || x[3] == 0) return invalid_input("GridSample of an image without pixels");
    LEPTON_RETURN_IF_ERROR(context.set_output(0, {x[0], x[1], grid[1], grid[2]}));
    context.set_run([this, x, grid](const RunArgs& args) {
      const int64_t rows = grid[0] * grid[1];
      args.parallel.loop(rows, [&](int64_t row, int) { sample_row(args, x, grid, row); });
      return Status();
    });
    return {};
  }

 private:
  void sample_row(const RunArgs& args, const Shape& x, const Shape& grid, int64_t row) const {
    const Axis vertical{x[2], align_corners_, padding_}, horizontal{x[3], align_corners_, padding_};
    const int64_t batch = row / grid[1], line = row % grid[1], width = grid[2];
    const int64_t pixels = x[2] * x[3], made = grid[1] * width;
    const float* at = args.input<float>(1) + row * width * 2;
    const float* image = args.input<float>(0) + batch * x[1] * pixels;
    float* to = args.output<float>(0) + batch * x[1] * made + line * width;
    for (int64_t j = 0; j < width; ++j) {
      const Taps taps = find_taps(vertical, horizontal, at[2 * j + 1], at[2 * j]);
      for (int64_t c = 0; c < x[1]; ++c) {
        float sum = 0;
        for (int t = 0; t < taps.count; ++t)
          sum += image[c * pixels + taps.offset[t]] * taps.weight[t];
        to[c * made + j] = sum;
      }
    }
  }

  Taps find_taps(const Axis& vertical, const Axis& horizontal, float gy, float gx) const {
    float y = vertical.position(gy), x = horizontal.position(gx);
    if (nearest_) y = std::nearbyint(y), x = std::nearbyint(x);
    y = vertical.inside(y), x = horizontal.inside(x);
    Taps taps;
    const int64_t width = horizontal.length;
    if (nearest_) {
      taps.add(vertical.pixel(static_cast<int64_t>(std::nearbyint(y))),
               horizontal.pixel(static_cast<int64_t>(std::nearbyint(x))), width, 1.f);
      return taps;
    }
    const float top = std::floor(y), left = std::floor(x);
    const auto i = static_cast<int64_t>(top), j = static_cast<int64_t>(left);
    const float dy = y - top, dx = x - left;
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 2; ++b)
        taps.add(vertical.pixel(i + a), horizontal.pixel(j + b), width,
                 (a ? dy : 1 - dy) * (b ? dx : 1 - dx));
    return taps;
  }

  bool nearest_, align_corners_;
  Padding padding_;
};

}  // namespace

Status make_grid_sample(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 2, 2));
  for (const TensorInfo& t : desc.inputs)
    if (t.dtype != DType::kF32)
      return unsupported("GridSample of " + std::string(name_of(t.dtype)));
  const std::string_view mode = desc.attrs->s("mode", "linear");
  const std::string_view padding = desc.attrs->s("padding_mode", "zeros");
  if (mode != "linear" && mode != "nearest") return unsupported("GridSample: cubic");
  if (desc.attrs->i("spatial_dims", 2) != 2)
    return unsupported("GridSample over other than two spatial dimensions");
  Padding kind = Padding::kZeros;
  if (padding == "border")
    kind = Padding::kBorder;
  else if (padding == "reflection")
    kind = Padding::kReflection;
  else if (padding != "zeros")
    return invalid_model("GridSample: padding_mode");
  *op =
      std::make_unique<GridSampleOp>(mode == "nearest", desc.attrs->i("align_corners") != 0, kind);
  return {};
}

}  // namespace lepton
