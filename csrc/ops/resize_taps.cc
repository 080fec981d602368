#include "ops/resize_taps.h"

#include <cmath>
#include <string>

namespace lepton {
namespace {

// Where in the input output element o lies. float32 throughout, in the order the specification
// writes it: rounding decides ties between neighbours.
float original_coordinate(CoordinateMode mode, const ResizeAxis& axis, int64_t o) {
  const float x = static_cast<float>(o), in = static_cast<float>(axis.in),
              out = static_cast<float>(axis.out);
  switch (mode) {
    case CoordinateMode::kAsymmetric: return x / axis.scale;
    case CoordinateMode::kPytorchHalfPixel:
      return axis.out > 1 ? (x + 0.5f) / axis.scale - 0.5f : 0.f;
    case CoordinateMode::kAlignCorners: return axis.out > 1 ? x * (in - 1) / (out - 1) : 0.f;
    case CoordinateMode::kHalfPixelSymmetric: {
      const float adjustment = out / (axis.scale * in);
      const float offset = in / 2 * (1 - adjustment);
      return offset + (x + 0.5f) / axis.scale - 0.5f;
    }
    case CoordinateMode::kTfCropAndResize: {
      const float start = axis.roi_start, end = axis.roi_end;
      return axis.out > 1 ? start * (in - 1) + x * (end - start) * (in - 1) / (out - 1)
                          : 0.5f * (start + end) * (in - 1);
    }
    default: return (x + 0.5f) / axis.scale - 0.5f;
  }
}

// NaN and anything far outside become the nearest end.
float clamp_coordinate(float x, int64_t in) {
  const float lowest = -8.f, highest = static_cast<float>(in) + 8.f;
  return !(x > lowest) ? lowest : x > highest ? highest : x;
}

int64_t clamp_to_axis(int64_t i, int64_t in) { return i < 0 ? 0 : i >= in ? in - 1 : i; }

int64_t nearest_index(NearestMode mode, float x) {
  switch (mode) {
    case NearestMode::kRoundPreferCeil: return static_cast<int64_t>(std::floor(x + 0.5f));
    case NearestMode::kFloor: return static_cast<int64_t>(std::floor(x));
    case NearestMode::kCeil: return static_cast<int64_t>(std::ceil(x));
    default: return static_cast<int64_t>(std::ceil(x - 0.5f));
  }
}

void cubic_weights(float a, float f, float* w) {
  const float f1 = f + 1, g = 1 - f, g1 = g + 1;
  w[0] = ((a * f1 - 5 * a) * f1 + 8 * a) * f1 - 4 * a;
  w[1] = ((a + 2) * f - (a + 3)) * f * f + 1;
  w[2] = ((a + 2) * g - (a + 3)) * g * g + 1;
  w[3] = ((a * g1 - 5 * a) * g1 + 8 * a) * g1 - 4 * a;
}

class TapsBuilder {
 public:
  TapsBuilder(const ResizeRule& rule, const ResizeAxis& axis, AxisTaps* taps)
      : rule_(rule), axis_(axis), taps_(taps) {}

  void add(int64_t o, float x) {
    switch (rule_.mode) {
      case ResizeMode::kNearest: add_nearest(o, x); break;
      case ResizeMode::kLinear: add_linear(o, x); break;
      case ResizeMode::kCubic: add_cubic(o, x); break;
    }
  }

 private:
  void set(int t, int64_t o, int64_t index, float weight) {
    const size_t at = static_cast<size_t>(t * axis_.out + o);
    taps_->index[at] = static_cast<int32_t>(clamp_to_axis(index, axis_.in));
    taps_->weight[at] = weight;
  }

  void add_nearest(int64_t o, float x) {
    const int64_t index = clamp_to_axis(nearest_index(rule_.nearest, x), axis_.in);
    set(0, o, index, 1.f);
    if (index != o) taps_->identity = false;
  }

  void add_linear(int64_t o, float x) {
    const float last = static_cast<float>(axis_.in - 1);
    x = x < 0 ? 0 : x > last ? last : x;
    const float low = std::floor(x);
    const float fraction = x - low;
    set(0, o, static_cast<int64_t>(low), 1 - fraction);
    set(1, o, static_cast<int64_t>(low) + 1, fraction);
    if (x != static_cast<float>(o)) taps_->identity = false;
  }

  void add_cubic(int64_t o, float x) {
    const float low = std::floor(x);
    const int64_t first = static_cast<int64_t>(low) - 1;
    float w[4];
    cubic_weights(rule_.cubic_coeff_a, x - low, w);
    if (rule_.exclude_outside) {
      float sum = 0;
      for (int t = 0; t < 4; ++t) {
        if (first + t < 0 || first + t >= axis_.in) w[t] = 0;
        sum += w[t];
      }
      if (sum != 0)
        for (float& v : w) v /= sum;
    }
    for (int t = 0; t < 4; ++t) set(t, o, first + t, w[t]);
    if (x != static_cast<float>(o)) taps_->identity = false;
  }

  const ResizeRule& rule_;
  const ResizeAxis& axis_;
  AxisTaps* taps_;
};

}  // namespace

Status make_taps(const ResizeRule& rule, const ResizeAxis& axis, AxisTaps* taps) {
  taps->taps = rule.mode == ResizeMode::kNearest ? 1 : rule.mode == ResizeMode::kLinear ? 2 : 4;
  taps->identity = axis.in == axis.out;
  const bool crop = rule.coordinates == CoordinateMode::kTfCropAndResize;
  if (axis.in == axis.out && axis.scale == 1.f && !crop) return {};  // exact, no table needed
  if (axis.out > kMaxResizedAxis || axis.in > INT32_MAX)
    return unsupported("Resize: an axis of " + std::to_string(axis.out));
  const size_t size = static_cast<size_t>(axis.out) * static_cast<size_t>(taps->taps);
  taps->index.resize(size);
  taps->weight.resize(size);
  TapsBuilder builder(rule, axis, taps);
  for (int64_t o = 0; o < axis.out; ++o) {
    const float x = original_coordinate(rule.coordinates, axis, o);
    if (crop && !(x >= 0 && x <= static_cast<float>(axis.in - 1))) taps->outside.push_back(o);
    builder.add(o, clamp_coordinate(x, axis.in));
  }
  if (!taps->outside.empty()) taps->identity = false;
  return {};
}

}  // namespace lepton
