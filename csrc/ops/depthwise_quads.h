// depthwise_s8_quads: a run of output pixels of a depthwise convolution whose window is three taps
// wide, of uint8 and int8 weights, requantised; the bits of depthwise_s8 (depthwise.h).
//
//   dst[i][c] = clamp(rint(float(bias[c] + sum over t of x_t[i][c] · w[t][c]) · scale[c])
//                     + zero_point, lo, hi)                                |scale[c]| <= 1/2
//
// input, input_step: as in depthwise.h, 3 · rows of them, those of a kernel row side by side; the
// kernel leaves them as they are. Of the pixels of the run exactly `channels` elements of each tap
// are read.
//
// operands: for every 64 channels int32 bias[64], float scale[64], then for every kernel row
// int8[2][64][4]: the quads (w0, w1, w2, 0), and (0, w0, w1, w2) for the pixel after, which finds
// two of its taps among those of the first where the steps are those between taps. All in the order
// depthwise_quad_channel; zeros beyond `channels`, but a last block of 32 channels and fewer has
// them twice, for pixels side by side. 64-byte aligned.
// dst: uint8, or int8 when lo < 0, rows dst_step apart; exactly `channels` of each are written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct DepthwiseQuadsParams {
  size_t channels, rows, pixels;
  const uint8_t* const* input;  // [3 · rows]
  const ptrdiff_t* input_step;  // [3 · rows]
  const std::byte* operands;
  int32_t zero_point, lo, hi;
  uint8_t* dst;
  size_t dst_step;
};
using DepthwiseQuadsKernel = void (*)(const DepthwiseQuadsParams&);

constexpr size_t kQuadBlock = 64;
// Place in a block → channel: interleaving four registers of bytes leaves four channels of every
// sixteen in each register.
constexpr size_t depthwise_quad_channel(size_t place) {
  return place % 16 / 4 * 16 + place / 16 * 4 + place % 4;
}
constexpr size_t depthwise_quads_block_bytes(size_t rows) {
  return kQuadBlock * (sizeof(int32_t) + sizeof(float) + 8 * rows);
}
constexpr size_t depthwise_quads_bytes(size_t channels, size_t rows) {
  return (channels + kQuadBlock - 1) / kQuadBlock * depthwise_quads_block_bytes(rows);
}
// w: [3 · rows][channels], each an int8.
void pack_depthwise_quads(const int16_t* w, const int32_t* bias, const float* scale,
                          size_t channels, size_t rows, std::byte* operands);

}  // namespace lepton
