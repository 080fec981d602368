// Gathers the lhs rows of a convolution from a copy of X that has the padding around every image
// and its elements in the form that the product reads. A kernel row of the window is then one
// stretch of memory wherever the window lies, and a kernel moves whole blocks (gather_rows.h): what
// lies behind a row, a product multiplies by zero or does not read. This pays where an image is so
// small that its copy is nearby when it is read: there borders and calls cost as much as the
// product; a large one takes longer to copy than its borders do. Included by drivers only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/conv_geometry.h"
#include "ops/gather_kernels.h"

namespace lepton {

// Where the padded images lie; empty where Gather does better.
class PaddedImages {
 public:
  PaddedImages() = default;
  // element: bytes of what is gathered.
  PaddedImages(const ConvAttrs& conv, const ConvShape& shape, size_t element)
      : w_(conv.window), s_(shape.window), channels_(conv.in_channels) {
    if (conv.group != 1 || w_.taps() == 1 || w_.kernel[0] != 1 || s_.in[0] != 1 || s_.out[0] != 1)
      return;
    if (w_.dilation[1] != 1 || w_.dilation[2] != 1) return;
    height_ = extent(1);
    width_ = extent(2);
    const size_t image = static_cast<size_t>(height_ * width_ * channels_) * element;
    if (image > kSmallImage) return;
    bytes_ = round_up(static_cast<size_t>(shape.batch) * image + kGatherBlock, kCacheLine);
    images_ = shape.batch;
    rows_ = best_gather_rows(conv.isa);
  }

  // 0: there are none.
  size_t bytes() const { return bytes_; }

  // Fills them from x. Copy as for Gather.
  template <typename Copy>
  void fill(const Copy& copy, const typename Copy::In* x, typename Copy::Out* to,
            Parallel parallel) const {
    const int64_t rows = images_ * height_, row = width_ * channels_;
    const int64_t each = std::max<int64_t>(1, kChunkElements / row);
    parallel.loop((rows + each - 1) / each, [&](int64_t chunk, int) {
      const int64_t end = std::min(rows, (chunk + 1) * each);
      for (int64_t r = chunk * each; r < end; ++r) fill_row(copy, x, r, to + r * row);
    });
  }

  // Rows [first, first + count), row_stride elements apart; kGatherBlock bytes behind the last
  // are written, too.
  template <typename T>
  void gather(const T* images, int64_t first, int64_t count, T* dst, int64_t row_stride) const {
    const int64_t line = width_ * channels_, step = w_.stride[2] * channels_;
    const int64_t stretch = w_.kernel[2] * channels_;
    while (count > 0) {
      const int64_t image = first / s_.out_pixels(), pixel = first % s_.out_pixels();
      const int64_t oh = pixel / s_.out[2], ow = pixel % s_.out[2];
      const int64_t run = std::min(count, s_.out[2] - ow);
      const T* src = images + (image * height_ + oh * w_.stride[1]) * line + ow * step;
      rows_({static_cast<size_t>(run), static_cast<size_t>(w_.kernel[1]), bytes_of<T>(stretch),
             reinterpret_cast<const uint8_t*>(src), bytes_of<T>(step), bytes_of<T>(line),
             reinterpret_cast<uint8_t*>(dst), bytes_of<T>(row_stride)});
      first += run, count -= run, dst += run * row_stride;
    }
  }

 private:
  static constexpr size_t kSmallImage = 64 * 1024;  // bytes
  static constexpr int64_t kChunkElements = 16 * 1024;

  // What the windows reach along an axis, the image included.
  int64_t extent(int axis) const {
    return std::max(s_.pad_begin[axis] + s_.in[axis],
                    (s_.out[axis] - 1) * w_.stride[axis] + w_.kernel[axis]);
  }

  template <typename T>
  static size_t bytes_of(int64_t elements) {
    return static_cast<size_t>(elements) * sizeof(T);
  }

  template <typename Copy>
  void fill_row(const Copy& copy, const typename Copy::In* x, int64_t r,
                typename Copy::Out* to) const {
    const int64_t h = r % height_ - s_.pad_begin[1], row = width_ * channels_;
    if (h < 0 || h >= s_.in[1]) {
      std::fill_n(to, row, copy.padding);
      return;
    }
    const int64_t left = s_.pad_begin[2] * channels_, inside = s_.in[2] * channels_;
    std::fill_n(to, left, copy.padding);
    copy(1, inside, x + (r / height_ * s_.in[1] + h) * inside, 0, to + left, 0);
    std::fill_n(to + left + inside, row - left - inside, copy.padding);
  }

  Window w_{};
  WindowShape s_{};
  int64_t channels_ = 0, images_ = 0, height_ = 0, width_ = 0;
  size_t bytes_ = 0;
  GatherRowsKernel rows_ = nullptr;
};

}  // namespace lepton
