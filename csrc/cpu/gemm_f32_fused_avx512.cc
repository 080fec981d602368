// The 12x32 tile of gemm_f32_fused_tile.h.
#include "cpu/f32x16_avx512.h"
#include "cpu/gemm_f32_fused_tile.h"

namespace lepton {

void gemm_f32_fused_12x32_avx512(const GemmF32FusedParams& params) {
  gemm_f32_fused<F32x16, 12>(params);
}

}  // namespace lepton
