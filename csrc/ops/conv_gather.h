// Gathers the lhs rows of a convolution: row r holds the taps · in_per_group inputs of output pixel
// r, tap-major, padding as the copy's own value. Runs of output pixels that read inside the image
// copy whole kernel rows (taps adjacent in w are adjacent in memory), many pixels a call; only
// edges go pixel by pixel.
//
// Copy is how elements move: In, Out, padding, and operator()(m, k, src, src_stride, dst,
// dst_stride), which fills m rows of k. Included by drivers only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/conv_geometry.h"

namespace lepton {

template <typename Copy>
class Gather {
 public:
  using In = typename Copy::In;
  using Out = typename Copy::Out;

  // row_stride >= depth; elements between the two are set to the padding.
  Gather(const ConvAttrs& conv, const ConvShape& shape, size_t row_stride, const Copy& copy)
      : w_(conv.window),
        s_(shape.window),
        channels_(conv.in_channels),
        width_(conv.in_per_group()),
        stride_(static_cast<int64_t>(row_stride)),
        depth_(conv.depth()),
        adjacent_(conv.group == 1 && conv.window.dilation[2] == 1),
        inside_(outputs_inside(s_.out[2], w_.stride[2], s_.pad_begin[2], w_.extent(2), s_.in[2])),
        copy_(copy) {}

  // Rows [first, first + count) for one group, from all of x.
  void operator()(const In* x, int64_t group, int64_t first, int64_t count, Out* dst) const {
    x += group * width_;
    while (count > 0) {
      const int64_t image = first / s_.out_pixels(), pixel = first % s_.out_pixels();
      const int64_t ow = pixel % s_.out[2];
      const int64_t run = std::min(count, s_.out[2] - ow);
      gather_run(x + image * s_.in_pixels() * channels_, pixel / s_.out[2], ow, run, dst);
      first += run, count -= run, dst += run * stride_;
    }
  }

 private:
  // `run` pixels of output row `row` from column ow on.
  void gather_run(const In* image, int64_t row, int64_t ow, int64_t run, Out* dst) const {
    if (stride_ > depth_) pad(run, stride_ - depth_, dst + depth_);
    const int64_t d0 = row / s_.out[1] * w_.stride[0] - s_.pad_begin[0];
    const int64_t h0 = row % s_.out[1] * w_.stride[1] - s_.pad_begin[1];
    const int64_t kernel_row = w_.kernel[2] * width_;
    for (int64_t i = 0; i < w_.kernel[0]; ++i) {
      const int64_t d = d0 + i * w_.dilation[0];
      for (int64_t j = 0; j < w_.kernel[1]; ++j, dst += kernel_row) {
        const int64_t h = h0 + j * w_.dilation[1];
        if (d < 0 || d >= s_.in[0] || h < 0 || h >= s_.in[1])
          pad(run, kernel_row, dst);
        else
          gather_kernel_row(image + (d * s_.in[1] + h) * s_.in[2] * channels_, ow, run, dst);
      }
    }
  }

  void gather_kernel_row(const In* line, int64_t ow, int64_t run, Out* dst) const {
    const int64_t end = ow + run;
    const int64_t first = std::clamp(inside_.first, ow, end);
    const int64_t last = std::clamp(inside_.last, first, end);
    for (int64_t o = ow; o < first; ++o) gather_edge(line, o, dst + (o - ow) * stride_);
    if (last > first) gather_inside(line, first, last - first, dst + (first - ow) * stride_);
    for (int64_t o = last; o < end; ++o) gather_edge(line, o, dst + (o - ow) * stride_);
  }

  void gather_inside(const In* line, int64_t o, int64_t run, Out* dst) const {
    const int64_t step = w_.stride[2] * channels_;
    const In* src = line + (o * w_.stride[2] - s_.pad_begin[2]) * channels_;
    if (adjacent_) return copy_(run, w_.kernel[2] * width_, src, step, dst, stride_);
    for (int64_t k = 0; k < w_.kernel[2]; ++k)
      copy_(run, width_, src + k * w_.dilation[2] * channels_, step, dst + k * width_, stride_);
  }

  // One pixel whose window may cross the left or right border.
  void gather_edge(const In* line, int64_t o, Out* dst) const {
    const int64_t w0 = o * w_.stride[2] - s_.pad_begin[2];
    const TapRange r = taps_inside(w0, w_.kernel[2], w_.dilation[2], s_.in[2]);
    pad(1, r.first * width_, dst);
    pad(1, (w_.kernel[2] - r.last) * width_, dst + r.last * width_);
    if (adjacent_ && r.last > r.first)
      return copy_(1, (r.last - r.first) * width_, line + (w0 + r.first) * channels_, 0,
                   dst + r.first * width_, 0);
    for (int64_t k = r.first; k < r.last; ++k)
      copy_(1, width_, line + (w0 + k * w_.dilation[2]) * channels_, 0, dst + k * width_, 0);
  }

  void pad(int64_t m, int64_t k, Out* dst) const {
    for (int64_t i = 0; i < m; ++i) fill(k, dst + i * stride_);
  }

  // Few elements (edges, ends of short rows) without a call of memset, which costs more than they
  // do.
  void fill(int64_t k, Out* dst) const {
    if (k >= 8) {
      std::fill_n(dst, k, copy_.padding);
      return;
    }
    const Out four[4] = {copy_.padding, copy_.padding, copy_.padding, copy_.padding};
    if (k & 4) std::memcpy(dst, four, 4 * sizeof(Out)), dst += 4;
    if (k & 2) std::memcpy(dst, four, 2 * sizeof(Out)), dst += 2;
    if (k & 1) *dst = copy_.padding;
  }

  const Window w_;
  const WindowShape s_;
  const int64_t channels_, width_, stride_, depth_;
  const bool adjacent_;
  const TapRange inside_;
  const Copy copy_;
};

}  // namespace lepton
