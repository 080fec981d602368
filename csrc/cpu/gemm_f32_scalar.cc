// The reference: one row of eight accumulators at a time, which baseline registers hold. Each
// element is summed over p in order with separate multiply and add.
#include "ops/gemm_f32.h"

namespace lepton {

void gemm_f32_4x8_scalar(const GemmF32Params& params) {
  constexpr size_t kNr = 8;
  for (size_t i = 0; i < params.m; ++i) {
    const float* lhs = params.lhs + i * params.lhs_stride;
    float* dst = params.dst + i * kNr;
    float sum[kNr] = {};
    if (params.accumulate)
      for (size_t j = 0; j < kNr; ++j) sum[j] = dst[j];
    for (size_t p = 0; p < params.k; ++p)
      for (size_t j = 0; j < kNr; ++j) sum[j] += lhs[p] * params.rhs[p * kNr + j];
    for (size_t j = 0; j < kNr; ++j) dst[j] = sum[j];
  }
}

}  // namespace lepton
