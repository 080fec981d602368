// The 32x32 tile of gemm_s8_amx.h on the processor's own tiles.
#include <immintrin.h>

#include "cpu/gemm_s8_amx.h"

namespace lepton {

void hold_tiles_amxint8(bool hold) { hold_tiles(hold); }

void gemm_s8_32x32c4_amxint8(const GemmS8Params& params) { gemm_32x32(params); }

}  // namespace lepton
