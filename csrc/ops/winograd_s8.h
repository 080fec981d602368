// winograd_s8: the two transforms of an 8-bit 3x3 convolution with stride 1 by Winograd's
// F(2x2, 3x3), in exact integers.
//
// A tile of 2x2 outputs needs a 4x4 patch of X; 16 products of channels replace its 36.
//   input:   v = Bᵀ (d − zero_point) B     one 4x4 patch d, every channel by itself
//   output:  y = (Aᵀ m A) / 4              m[e] = v[e] · u[e], u = (2G) w (2G)ᵀ from pack time
//        | 1  0 −1  0 |                         | 2  0  0 |
//   Bᵀ = | 0  1  1  0 |   Aᵀ = | 1 1  1  0 |    2G = | 1  1  1 |
//        | 0 −1  1  0 |        | 0 1 −1 −1 |         | 1 −1  1 |
//        | 0  1  0 −1 |                         | 0  0  2 |
// Doubling G on both sides makes u integers, and Aᵀ m A four times the sum: the division is exact.
// |v| <= 4 · 255 and |u| <= 9 · 255 fit int16. Everything after them is arithmetic modulo 2^32, so
// the result is exact if four times the sum fits int32, whatever m does on the way; the packer
// proves |sum| < 2^29. Rows of Bᵀ but the second add up to zero, so the zero point reaches one
// product only, four times. Method: Lavin and Gray, arXiv 1509.09308.
//
// channels is a multiple of 16. No operand overlaps another; nothing is aligned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

constexpr size_t kWinogradS8Tile = 2, kWinogradS8Patch = 4;
constexpr size_t kWinogradS8Products = 16, kWinogradS8Channels = 16;

struct WinogradS8InputParams {
  size_t channels;
  const uint8_t* const* pixels;  // [16], row by row; `channels` bytes of each are read
  uint8_t flip;                  // 0 for u8; 0x80 makes s8 values u8, x + 128
  int32_t zero_point;            // of the u8 values
  int16_t* v;                    // channel c of product e at v[e · v_step + c]
  size_t v_step;
};

// m lies in panels, as gemm_s8 leaves it: channel c of product e at
// m[e · m_step + c / width · panel_step + c % width].
struct WinogradS8OutputParams {
  size_t channels;
  const int32_t* m;
  size_t m_step, panel_step, width;  // width is a multiple of 8
  int32_t* y;  // channel c of pixel (i, j) at y[i · row_step + j · y_step + c]
  size_t row_step, y_step;
};

struct WinogradS8Kernels {
  void (*input)(const WinogradS8InputParams&);
  void (*output)(const WinogradS8OutputParams&);
};

#define LEPTON_WINOGRAD_S8(name, isa) WinogradS8Kernels name();
#include "ops/winograd_s8_kernels.inc"
#undef LEPTON_WINOGRAD_S8

}  // namespace lepton
