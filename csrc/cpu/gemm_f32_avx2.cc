// The 6x16 tile of gemm_f32_tile.h: twelve accumulators, six cycles a step, 16 multiply-accumulates
// a cycle.
#include "cpu/f32x8_avx2.h"
#include "cpu/gemm_f32_tile.h"

namespace lepton {

void gemm_f32_6x16_avx2(const GemmF32Params& params) { gemm_f32<F32x8, 6>(params); }

}  // namespace lepton
