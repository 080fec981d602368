// gemm_s8_fused: one register tile of gemm_s8 of form u8 or u8 runs with its requantisation,
// straight to the result.
//
//   dst[i][j] = clamp(rint(float(bias[j] + sum over p of lhs[i][p] · rhs[p][j]) · scale[j])
//                     + zero_point, lo, hi)             i < m <= mr, j < n <= width <= nr, p < k
//
// The bits are those of gemm_s8 (gemm_s8.h) and of the epilogue of kind kRequantize (epilogue.h)
// after it, or of kRequantizeSum where there is a residual, which not every line takes; where few
// products a result would leave the way through memory as the longer part.
//
// Where 2·width <= nr, m may be as large as narrow_mr: registers are left for more rows.
//
// lhs, rhs, k: as in gemm_s8.h, width being its n. bias (n entries) may be null; scale has n
// entries. dst: uint8, or int8 when lo < 0, rows dst_stride apart; exactly n columns are written,
// no alignment is asked for.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct GemmS8FusedParams {
  size_t m, n, width, k;
  const uint8_t* lhs;
  size_t lhs_stride;
  const int8_t* rhs;
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
