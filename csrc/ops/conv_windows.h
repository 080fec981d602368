// The lhs rows of a convolution as windows of rows of the image (gemm_s8_windows.h): a kernel row
// of a window is one stretch of memory, and windows that overlap share it. Only the image rows that
// a block of output pixels reads are copied, with their padding and in the form that the product
// reads; gathered pixel by pixel (conv_gather.h), a 3x3 window would be copied nine times. Included
// by drivers only.
//
// Planar: X has a plane for every channel, as the first layer of a network gets it, and few of
// them. Image rows are copied plane by plane, so nothing is transposed, and a kernel row of the
// window is a stretch in each plane, up to a multiple of four values: the packed weights of those
// beyond the window are zeros.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/conv_geometry.h"
#include "ops/gemm.h"

namespace lepton {

class ConvWindows {
 public:
  ConvWindows() = default;
  // Of 8-bit images; kr: of the product's kernel.
  ConvWindows(const ConvAttrs& conv, const ConvShape& shape, size_t kr)
      : w_(conv.window),
        s_(shape.window),
        channels_(conv.in_channels),
        planes_(conv.planar ? conv.in_channels : 1) {
    stretch_ = conv.planar ? conv.planar_run() : w_.kernel[2];
    const bool flat = w_.kernel[0] == 1 && s_.in[0] == 1 && s_.out[0] == 1;
    const bool dense = w_.dilation[1] == 1 && w_.dilation[2] == 1 && w_.stride[1] <= w_.kernel[1] &&
                       w_.stride[2] <= w_.kernel[2];
    if (conv.group != 1 || w_.taps() == 1 || !flat || !dense || run() % kr != 0) return;
    width_ = std::max(s_.pad_begin[2] + s_.in[2], (s_.out[2] - 1) * w_.stride[2] + stretch_);
  }

  // Whether windows can be read so.
  explicit operator bool() const { return width_ > 0; }
  size_t runs() const { return static_cast<size_t>(w_.kernel[1] * planes_); }
  size_t run() const { return static_cast<size_t>(stretch_ * channels_ / planes_); }
  size_t pitch() const { return static_cast<size_t>(width_ * channels_ / planes_); }
  // Bytes of the image that an output pixel takes, about.
  size_t bytes_per_pixel() const {
    return static_cast<size_t>(w_.stride[1] * w_.stride[2] * channels_);
  }

  // Memory for `count` output pixels: pointers, then image rows.
  size_t bytes(size_t count) const { return rows_at(count) + image_rows(count) * row_bytes(); }

  // Fills it for output pixels [first, first + count) of x; returns the pointers. Copy as for
  // Gather.
  template <typename Copy>
  const uint8_t* const* fill(const Copy& copy, const uint8_t* x, int64_t first, int64_t count,
                             std::byte* memory) const {
    auto* const pointers = reinterpret_cast<const uint8_t**>(memory);
    auto* to = reinterpret_cast<uint8_t*>(memory + rows_at(static_cast<size_t>(count)));
    const int64_t pixels = s_.out_pixels();
    for (int64_t done = 0; done < count;) {
      const int64_t image = (first + done) / pixels, pixel = (first + done) % pixels;
      const int64_t some = std::min(count - done, pixels - pixel);
      const int64_t top = pixel / s_.out[2], bottom = (pixel + some - 1) / s_.out[2];
      const int64_t height = (bottom - top) * w_.stride[1] + w_.kernel[1];
      point(pixel, some, to, pointers + done);
      for (int64_t h = 0; h < height; ++h, to += row_bytes())
        fill_row(copy, x + image * s_.in_pixels() * channels_,
                 top * w_.stride[1] + h - s_.pad_begin[1], to);
      done += some;
    }
    return pointers;
  }

 private:
  static size_t rows_at(size_t count) { return round_up(count * sizeof(void*), kCacheLine); }

  // Of a copied image row.
  size_t row_bytes() const { return static_cast<size_t>(width_ * channels_); }

  // Image rows that any `count` output pixels in a row need.
  size_t image_rows(size_t count) const {
    const auto spanned = [&](int64_t size) {
      return ceil_div(count - 1, static_cast<size_t>(size)) + 1;
    };
    const auto stride = static_cast<size_t>(w_.stride[1]),
               kernel = static_cast<size_t>(w_.kernel[1]);
    return spanned(s_.out[2]) * stride + spanned(s_.out_pixels()) * (kernel - stride);
  }

  // Pointers of `count` pixels from `pixel` on; rows: the image rows of the first one.
  void point(int64_t pixel, int64_t count, const uint8_t* rows, const uint8_t** pointers) const {
    const int64_t step = w_.stride[2] * channels_ / planes_;
    for (int64_t i = 0, ow = pixel % s_.out[2]; i < count; ++i) {
      pointers[i] = rows + ow * step;
      if (++ow < s_.out[2]) continue;
      ow = 0;
      rows += w_.stride[1] * static_cast<int64_t>(row_bytes());
    }
  }

  template <typename Copy>
  void fill_row(const Copy& copy, const uint8_t* image, int64_t h, uint8_t* to) const {
    const auto row = static_cast<int64_t>(pitch());
    if (h < 0 || h >= s_.in[1]) {
      std::fill_n(to, row * planes_, copy.padding);
      return;
    }
    const int64_t interleaved = channels_ / planes_;
    const int64_t left = s_.pad_begin[2] * interleaved, inside = s_.in[2] * interleaved;
    for (int64_t plane = 0; plane < planes_; ++plane, to += row) {
      std::fill_n(to, left, copy.padding);
      copy(1, inside, image + (plane * s_.in[1] + h) * inside, 0, to + left, 0);
      std::fill_n(to + left + inside, row - left - inside, copy.padding);
    }
  }

  Window w_{};
  WindowShape s_{};
  int64_t channels_ = 0, planes_ = 1, stretch_ = 0, width_ = 0;
};

}  // namespace lepton
