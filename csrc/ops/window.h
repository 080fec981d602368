// Sliding windows: the geometry that convolution and pooling share. One to three spatial dimensions
// are held as three (depth, height, width); missing leading ones have extent 1 and a window of 1.
#pragma once

#include <cstdint>

#include "core/shape.h"
#include "core/status.h"
#include "ops/op.h"

namespace lepton {

constexpr int kSpatial = 3;

enum class AutoPad : uint8_t { kExplicit, kSameUpper, kSameLower, kValid };

// The attributes kernel_shape, strides, dilations, pads (begins then ends), auto_pad, ceil_mode.
struct Window {
  int rank = 0;  // spatial dimensions of the model, 1 to 3
  int64_t kernel[kSpatial] = {1, 1, 1};
  int64_t stride[kSpatial] = {1, 1, 1};
  int64_t dilation[kSpatial] = {1, 1, 1};
  int64_t pad_begin[kSpatial] = {};
  int64_t pad_end[kSpatial] = {};
  AutoPad auto_pad = AutoPad::kExplicit;
  bool ceil_mode = false;

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t extent(int axis) const { return (kernel[axis] - 1) * dilation[axis] + 1; }
};

// Reads and bounds the attributes; kernel_shape is required and fixes the rank.
Status parse_window(const Attrs& attrs, Window* window);

// A window over a concrete input: auto_pad resolved.
struct WindowShape {
  int64_t in[kSpatial] = {1, 1, 1};
  int64_t out[kSpatial] = {1, 1, 1};
  int64_t pad_begin[kSpatial] = {};
  int64_t pad_end[kSpatial] = {};

  int64_t in_pixels() const { return in[0] * in[1] * in[2]; }
  int64_t out_pixels() const { return out[0] * out[1] * out[2]; }
};

// x: [N, C, spatial…], or [N, spatial…, C] when channels_last. Output sizes as ONNX defines them;
// with ceil_mode a last window that would start beyond the input and its left padding is dropped.
Status resolve_window(const Window& window, const Shape& x, bool channels_last, WindowShape* shape);

// [N, C, out…] or [N, out…, C].
Shape window_output(const Window& window, const WindowShape& shape, int64_t batch, int64_t channels,
                    bool channels_last);

inline int64_t batch_of(const Shape& x) { return x[0]; }
inline int64_t channels_of(const Shape& x, bool channels_last) {
  return x[channels_last ? x.rank - 1 : 1];
}

// Taps k of [0, kernel) whose position origin + k·dilation lies inside [0, in): [first, last).
struct TapRange {
  int64_t first, last;
};
inline TapRange taps_inside(int64_t origin, int64_t kernel, int64_t dilation, int64_t in) {
  const int64_t first = origin >= 0 ? 0 : (-origin + dilation - 1) / dilation;
  const int64_t last = origin >= in ? 0 : (in - origin + dilation - 1) / dilation;
  TapRange r{first < kernel ? first : kernel, last < kernel ? last : kernel};
  if (r.last < r.first) r.last = r.first;
  return r;
}

// Outputs o of [0, out) whose whole window o·stride − pad + [0, extent) lies inside [0, in):
// [first, last).
inline TapRange outputs_inside(int64_t out, int64_t stride, int64_t pad, int64_t extent,
                               int64_t in) {
  const int64_t first = (pad + stride - 1) / stride;
  const int64_t room = in + pad - extent;  // greatest o·stride
  const int64_t last = room < 0 ? 0 : room / stride + 1;
  TapRange r{first < out ? first : out, last < out ? last : out};
  if (r.last < r.first) r.last = r.first;
  return r;
}

}  // namespace lepton
