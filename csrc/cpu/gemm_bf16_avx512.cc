// The 12x32 tile of gemm_bf16_tile.h, and a row against four panels: eight accumulators, two FMAs a
// cycle, 64 bytes of weights.
#include "cpu/f32x16_avx512.h"
#include "cpu/gemm_bf16_tile.h"

namespace lepton {

void gemm_bf16_12x32_avx512(const GemmBf16Params& params) { gemm_bf16<F32x16, 4, 12>(params); }

void unpack_bf16_32_avx512(const uint16_t* panel, size_t k, float* dst) {
  unpack_bf16<F32x16>(panel, k, dst);
}

}  // namespace lepton
