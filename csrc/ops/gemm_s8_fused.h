// gemm_s8_fused: rows of gemm_s8 of form u8 or u8 runs against one panel, with their
// requantisation, straight to the result.
//
//   dst[i][j] = clamp(rint(float(bias[j] + sum over p of lhs[i][p] · rhs[p][j]) · scale[j])
//                     + zero_point, lo, hi)                   i < m, j < n <= width <= nr, p < k
//
// The bits are those of gemm_s8 (gemm_s8.h) and of the epilogue of kind kRequantize (epilogue.h)
// after it, or of kRequantizeSum where there is a residual, which not every line takes.
//
// lhs, rhs, k: as in gemm_s8.h, width being its n and m any number. Lines that take windows read a
// row where windows[i] points instead: `runs` stretches of `run` values, a multiple of kr, `pitch`
// apart, runs · run = k (gemm_s8_windows.h). bias (n entries) may be null; scale has n entries.
// dst: uint8, or int8 when lo < 0, rows dst_stride apart; exactly n columns are written, no
// alignment is asked for.
//
// next: cache lines that will be read after this panel; the kernel brings them into L2 as it goes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct GemmS8FusedParams {
  size_t m, n, width, k;
  const uint8_t* lhs;
  size_t lhs_stride;
  const uint8_t* const* windows;  // [m], instead of lhs; or null
  size_t runs, run, pitch;
  const int8_t* rhs;
  const std::byte* next;
  size_t next_lines;
  const int32_t* bias;
  const float* scale;
  int32_t zero_point, lo, hi;
  uint8_t* dst;
  size_t dst_stride;
  const uint8_t* residual;  // int8 when r_signed; or null
  size_t residual_stride;
  bool r_signed;
  float r_scale;
  int32_t r_zero_point;
};
using GemmS8FusedKernel = void (*)(const GemmS8FusedParams&);

}  // namespace lepton
