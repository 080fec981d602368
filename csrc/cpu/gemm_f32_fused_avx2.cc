// The 6x16 tile of gemm_f32_fused_tile.h.
#include "cpu/f32x8_avx2.h"
#include "cpu/gemm_f32_fused_tile.h"

namespace lepton {

void gemm_f32_fused_6x16_avx2(const GemmF32FusedParams& params) {
  gemm_f32_fused<F32x8, 6>(params);
}

}  // namespace lepton
