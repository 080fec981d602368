// The 12x32 tile of gemm_f32_tile.h: twenty-four accumulators, twelve cycles a step, 32
// multiply-accumulates a cycle.
#include "cpu/f32x16_avx512.h"
#include "cpu/gemm_f32_tile.h"

namespace lepton {

void gemm_f32_12x32_avx512(const GemmF32Params& params) { gemm_f32<F32x16, 12>(params); }

}  // namespace lepton
