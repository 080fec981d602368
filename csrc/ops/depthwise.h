// Depthwise convolution over channels-last tensors: a run of output pixels of one output row.
//
//   f32:  y[i][c] = clamp(bias[c] + sum over t of x_t[i][c] · w[t][c] + residual[i][c], min, max)
//   s8:   acc[i][c] = bias[c] + sum over t of x_t[i][c] · w[t][c]                    exact int32
//
// where x_t[i] = input[t] + i·input_step[t] (in elements) points at the `channels` values that tap
// t reads for pixel i. A tap that falls into the padding for the whole run points at a row of
// padding values (zeros, or the zero point) with step 0, so any window, stride and dilation is the
// same loop. What leaves the left or right edge within a row is a run of its own, chosen by the
// driver.
//
// Layouts. f32: w is [taps][channels], no padding anywhere; bias, residual may be null. Sums run
// over taps in order; FMA is allowed. s8: activations are raw u8 or s8. w comes from
// pack_depthwise_s8: blocks of kDepthwiseBlock channels, [channels/16][(taps+1)/2][16][2] int16
// with the weight zero point subtracted (|w| <= 255), the two of a pair being taps 2p and 2p+1;
// channels are in the order kDepthwiseLane, which the unpack instructions of x86 leave behind and
// which is harmless elsewhere. An odd last tap is paired with zero weights (and reads tap taps−1
// again). bias has round_up(channels, 16) entries in natural order and already holds −x_zero_point
// · sum of w. acc rows are acc_stride >= round_up(channels, 16) apart, 32-byte aligned; lanes
// beyond `channels` are written with unspecified values. |x|, |w| <= 255, so a pair of products
// never overflows; sums wrap modulo 2^32.
//
// Inputs are read for exactly `channels` elements of each tap. dst overlaps no input. The pointers
// in input belong to the call: the kernel leaves them at the pixel after the run, so a run may be
// continued by the next call.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct DepthwiseF32Params {
  size_t channels, taps, pixels;
  const float** input;          // [taps]
  const ptrdiff_t* input_step;  // [taps]
  const float* weights;
  const float* bias;
  const float* residual;
  size_t residual_step;
  float min, max;
  float* dst;
  size_t dst_step;
};
using DepthwiseF32Kernel = void (*)(const DepthwiseF32Params&);

constexpr size_t kDepthwiseBlock = 16;
// Position in a packed block → channel within the block.
constexpr uint8_t kDepthwiseLane[kDepthwiseBlock] = {0, 1, 2, 3, 8,  9,  10, 11,
                                                     4, 5, 6, 7, 12, 13, 14, 15};

struct DepthwiseS8Params {
  size_t channels, taps, pixels;
  bool input_signed;
  const uint8_t** input;        // [taps]
  const ptrdiff_t* input_step;  // [taps]
  const int16_t* weights;
  const int32_t* bias;
  int32_t* acc;
  size_t acc_stride;
};
using DepthwiseS8Kernel = void (*)(const DepthwiseS8Params&);

// Elements of a packed s8 weight block.
constexpr size_t depthwise_s8_packed_size(size_t channels, size_t taps) {
  return (channels + kDepthwiseBlock - 1) / kDepthwiseBlock * kDepthwiseBlock * ((taps + 1) / 2) *
         2;
}
// w: [taps][channels], zero points already subtracted.
void pack_depthwise_s8(const int16_t* w, size_t channels, size_t taps, int16_t* packed);

}  // namespace lepton
