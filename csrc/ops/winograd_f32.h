// winograd_f32: the transforms of convolutions with stride 1 by Winograd's F(4x4, 3x3) and
// F(2x2, 5x5), which differ in that of the output alone.
//
// A tile of 4x4 outputs of a 3x3 convolution, or of 2x2 of a 5x5 one, needs a 6x6 patch of X; 36
// products of channels replace its 144, or 100. With the
// points 0, ±1/√2, ±√2 and infinity,
//   input:   v = Bᵀ d B           one 6x6 patch d, every channel by itself
//   output:  y = Aᵀ m A           m[e] = v[e] · u[e], u = G w Gᵀ from pack time
//        | 1    0  −5/2    0   1  0 |        | 1  1   1  1   1  0 |
//        | 0 −2/r   −2   1/r   1  0 |        | 0 1/r −1/r r −r  0 |
//   Bᵀ = | 0  2/r   −2  −1/r   1  0 |   Aᵀ = | 0 1/2 1/2  2  2  0 |      r = √2
//        | 0 −r/2 −1/2    r    1  0 |        | 0 s  −s  2r −2r  1 |      s = r/4
//        | 0  r/2 −1/2   −r    1  0 |
//        | 0    1    0 −5/2    0  1 |
// and for 2x2 outputs Aᵀ is its first two rows, the second with a 1 at the end.
//
// These points keep all entries near one, so the error stays within a few times that of a direct
// sum (the points 0, ±1, ±2 lose twice as much). Method: Lavin and Gray, arXiv 1509.09308; choice
// of points: Barabasz et al., arXiv 1803.10986. G: lowering/winograd.py.
//
// No operand overlaps another; nothing is aligned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

constexpr size_t kWinogradPatch = 6, kWinogradProducts = 36;

struct WinogradInputParams {
  size_t channels;
  const float* const* pixels;  // [36], row by row; `channels` floats of each are read
  float* v;                    // channel c of product e at v[e · v_step + c]
  size_t v_step;
};

// m lies in panels, as gemm_f32 leaves it: channel c of product e at
// m[e · m_step + c / width · panel_step + c % width].
struct WinogradOutputParams {
  size_t channels;  // a multiple of the kernel's lanes, which divide width
  const float* m;
  size_t m_step, panel_step, width;
  float* y;  // channel c of output o at y[o · y_step + c]
  size_t y_step;
};

struct WinogradKernels {
  void (*input)(const WinogradInputParams&);
  void (*output_4x4)(const WinogradOutputParams&);
  void (*output_2x2)(const WinogradOutputParams&);
};

#define LEPTON_WINOGRAD_F32(name, isa, lanes) WinogradKernels name();
#include "ops/winograd_f32_kernels.inc"
#undef LEPTON_WINOGRAD_F32

}  // namespace lepton
