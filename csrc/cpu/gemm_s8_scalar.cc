// The reference: one row of eight accumulators at a time, in unsigned arithmetic because the
// contract's sums wrap.
#include "ops/gemm_s8.h"

namespace lepton {

void gemm_s8_4x8c2_scalar(const GemmS8Params& params) {
  constexpr size_t kNr = 8, kKr = 2;
  for (size_t i = 0; i < params.m; ++i) {
    const int16_t* lhs = params.lhs + i * params.lhs_stride;
    int32_t* dst = params.dst + i * kNr;
    uint32_t sum[kNr] = {};
    if (params.accumulate)
      for (size_t j = 0; j < kNr; ++j) sum[j] = static_cast<uint32_t>(dst[j]);
    for (size_t p = 0; p < params.k; p += kKr) {
      const int16_t* rhs = params.rhs + p * kNr;
      for (size_t j = 0; j < kNr; ++j) {
        const int32_t pair =
            int32_t{lhs[p]} * rhs[j * kKr] + int32_t{lhs[p + 1]} * rhs[j * kKr + 1];
        sum[j] += static_cast<uint32_t>(pair);
      }
    }
    for (size_t j = 0; j < kNr; ++j) dst[j] = static_cast<int32_t>(sum[j]);
  }
}

}  // namespace lepton
