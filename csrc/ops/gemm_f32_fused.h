// gemm_f32_fused: one register tile of gemm_f32 with its epilogue, straight to the result.
//
//   dst[i][j] = clamp(sum over p of lhs[i][p] · rhs[p][j] + bias[j] + residual[i][j], min, max)
//                                                       i < m <= mr, j < n <= nr, p < k
//
// The bits are those of gemm_f32 of the same isa (gemm_f32.h) and of the epilogue (epilogue.h)
// after it, where few products a result would leave the way through memory as the longer part.
//
// lhs, rhs, prefetch: as in gemm_f32.h. bias (n entries) and residual may be null; then nothing is
// added. dst, residual: rows dst_stride and residual_stride elements apart; exactly n columns are
// read and written, no alignment is asked for. residual may be dst; nothing else overlaps.
#pragma once

#include <cstddef>

namespace lepton {

struct GemmF32FusedParams {
  size_t m, n, k;
  const float* lhs;
  size_t lhs_stride;
  const float* rhs;
  const float* prefetch;
  size_t prefetch_step;
  const float* bias;
  const float* residual;
  size_t residual_stride;
  float min, max;
  float* dst;
  size_t dst_stride;
};
using GemmF32FusedKernel = void (*)(const GemmF32FusedParams&);

}  // namespace lepton
