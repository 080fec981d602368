// Depthwise convolution over channels-last tensors: a run of output pixels of one output row.
//
//   f32:  y[i][c] = clamp(bias[c] + sum over t of x_t[i][c] · w[t][c] + residual[i][c], min, max)
//   s8:   acc[i][c] = bias[c] + sum over t of x_t[i][c] · w[t][c]                    exact int32
//         dst[i][c] = clamp(rint(float(acc[i][c]) · scale[c]) + zero_point, lo, hi)
//
// where x_t[i] = input[t] + i·input_step[t] (in elements) points at the `channels` values that tap
// t reads for pixel i. A tap that falls into the padding for the whole run points at a row of
// padding values (zeros, or the zero point) with step 0, so any window, stride and dilation is the
// same loop. What leaves the left or right edge within a row is a run of its own, chosen by the
// driver.
//
// Layouts. f32: w is [taps][channels], no padding anywhere; bias, residual may be null. Sums run
// over taps in order; FMA is allowed.
//
// s8: activations are raw u8 or s8. Channels are taken in blocks of kDepthwiseBlock, and within a
// block in the order kDepthwiseLane, in which x86 can pair the taps of a channel with the fewest
// shuffles (cpu/depthwise_s8_avx2.cc); elsewhere any order is as good. bias and scale are
// [blocks][32] in that order, w is [blocks][(taps+1)/2][32][2] int16 with the weight zero point
// subtracted (|w| <= 255), the two of a pair being taps 2p and 2p+1; an odd last tap is paired with
// zero weights (and reads tap taps−1 again). Entries beyond `channels` are zeros. bias holds
// −x_zero_point · sum of w besides the bias. With acc null, dst gets the requantised result as
// epilogue.h (kRequantize) defines it; otherwise acc gets the sums, its rows acc_stride >=
// round_up(channels, 32) apart and whole blocks written, lanes beyond `channels` unspecified.
// |x|, |w| <= 255, so a pair of products never overflows; sums wrap modulo 2^32.
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

constexpr size_t kDepthwiseBlock = 32;
// Position in a packed block → channel within the block.
constexpr uint8_t kDepthwiseLane[kDepthwiseBlock] = {0,  2,  4,  6,  16, 18, 20, 22, 1,  3,  5,
                                                     7,  17, 19, 21, 23, 8,  10, 12, 14, 24, 26,
                                                     28, 30, 9,  11, 13, 15, 25, 27, 29, 31};

struct DepthwiseS8Params {
  size_t channels, taps, pixels;
  bool input_signed;
  const uint8_t** input;        // [taps]
  const ptrdiff_t* input_step;  // [taps]
  const int16_t* weights;
  const int32_t* bias;
  const float* scale;  // dst only, as the next four
  int32_t zero_point, lo, hi;
  uint8_t* dst;  // u8 or s8: the sign is in lo and hi
  size_t dst_step;
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
