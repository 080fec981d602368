// What Resize does to one axis: which input elements make each output element, with which weights.
#pragma once

#include <cstdint>
#include <vector>

#include "core/status.h"

namespace lepton {

enum class ResizeMode { kNearest, kLinear, kCubic };
enum class CoordinateMode {
  kHalfPixel,
  kHalfPixelSymmetric,
  kPytorchHalfPixel,
  kAsymmetric,
  kAlignCorners,
  kTfCropAndResize
};
enum class NearestMode { kRoundPreferFloor, kRoundPreferCeil, kFloor, kCeil };

// The attributes that all axes share.
struct ResizeRule {
  ResizeMode mode = ResizeMode::kNearest;
  CoordinateMode coordinates = CoordinateMode::kHalfPixel;
  NearestMode nearest = NearestMode::kRoundPreferFloor;
  float cubic_coeff_a = -0.75f;
  bool exclude_outside = false;
};

struct ResizeAxis {
  int64_t in = 1, out = 1;
  float scale = 1.f;
  float roi_start = 0.f, roi_end = 1.f;  // kTfCropAndResize
};

// index and weight are planar: entry [t][o] at t · out + o. Indices are within [0, in).
struct AxisTaps {
  int taps = 0;
  std::vector<int32_t> index;
  std::vector<float> weight;
  std::vector<int64_t> outside;  // outputs that take the extrapolation value instead
  bool identity = false;         // every output is the input at the same place
};

// Longest axis that Resize changes: bounds the tables of a hostile model.
constexpr int64_t kMaxResizedAxis = int64_t{1} << 22;

Status make_taps(const ResizeRule& rule, const ResizeAxis& axis, AxisTaps* taps);

}  // namespace lepton
