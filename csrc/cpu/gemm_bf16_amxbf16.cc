// The 32x32 tile of gemm_bf16_amx.h on the processor's own tiles.
#include <immintrin.h>

#include "cpu/gemm_bf16_amx.h"

namespace lepton {

void hold_tiles_amxbf16(bool hold) { hold_tiles(hold); }

void gemm_bf16_32x32c32_amxbf16(const GemmBf16PairsParams& params) { gemm_32x32(params); }

}  // namespace lepton
