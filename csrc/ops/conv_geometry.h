// Attributes and shapes that every convolution driver shares.
//
// Attributes: kernel_shape (required), strides, dilations, pads (begins then ends) or auto_pad,
// group, in_channels, out_channels (required), channels_last (layout of X; 1 unless given).
#pragma once

#include "ops/window.h"

namespace lepton {

struct ConvAttrs {
  Window window;
  int64_t in_channels = 0, out_channels = 0, group = 1;
  bool channels_last = true;
  bool planar = false;      // X is channels-first, and products read its planes (conv_windows.h)
  Isa isa = Isa::k_scalar;  // the step's

  int64_t in_per_group() const { return in_channels / group; }
  int64_t out_per_group() const { return out_channels / group; }
  // A row of the window in one plane, as the product takes it: up to whole quads.
  int64_t planar_run() const { return (window.kernel[2] + 3) / 4 * 4; }
  // k of one group's product.
  int64_t depth() const {
    return planar ? window.kernel[1] * in_channels * planar_run() : window.taps() * in_per_group();
  }
};

// Reads and bounds the attributes: taps · in_channels cannot overflow afterwards.
Status parse_conv(const Attrs& attrs, Isa isa, ConvAttrs* conv);

// A convolution over a concrete X. The result is channels-last: [N, out spatial…, out_channels].
struct ConvShape {
  WindowShape window;
  int64_t batch = 0;
  Shape y;

  int64_t rows() const { return batch * window.out_pixels(); }
};
Status resolve_conv(const ConvAttrs& conv, const Shape& x, ConvShape* shape);

// Copies n images [channels][pixels] to [pixels][channels], elements of 1 or 4 bytes.
void to_channels_last(const void* x, int64_t batch, int64_t channels, int64_t pixels,
                      size_t element, Isa isa, void* y, Parallel parallel);
// True when both layouts of X are the same bytes.
bool is_either_layout(const ConvAttrs& conv, const WindowShape& shape);

// Operand i is a constant vector of a dtype and count, or omitted.
Status expect_vector(const TensorInfo& operand, DType dtype, int64_t count, const char* name);
// Operand i is a constant blob of so many bytes, aligned for the kernels.
Status expect_blob(const TensorInfo& operand, size_t bytes);

}  // namespace lepton
