// The 6x16 tile of gemm_bf16_tile.h, and a row against four panels: eight accumulators, two FMAs a
// cycle, 32 bytes of weights.
#include "cpu/f32x8_avx2.h"
#include "cpu/gemm_bf16_tile.h"

namespace lepton {

void gemm_bf16_6x16_avx2(const GemmBf16Params& params) { gemm_bf16<F32x8, 4, 6>(params); }

void unpack_bf16_16_avx2(const uint16_t* panel, size_t k, float* dst) {
  unpack_bf16<F32x8>(panel, k, dst);
}

}  // namespace lepton
