// The references, one for each form of the operands: one row of accumulators at a time, in unsigned
// arithmetic because the contract's sums wrap.
#include "ops/gemm_s8.h"

namespace lepton {
namespace {

template <size_t kKr, typename Lhs, typename Rhs>
inline void tile(const GemmS8Params& params) {
  constexpr size_t kNr = 8;
  for (size_t i = 0; i < params.m; ++i) {
    const Lhs* lhs = static_cast<const Lhs*>(params.lhs) + i * params.lhs_stride;
    const Rhs* rhs = static_cast<const Rhs*>(params.rhs);
    int32_t* dst = params.dst + i * kNr;
    uint32_t sum[kNr] = {};
    if (params.accumulate)
      for (size_t j = 0; j < kNr; ++j) sum[j] = static_cast<uint32_t>(dst[j]);
    for (size_t p = 0; p < params.k; p += kKr, rhs += kKr * kNr)
      for (size_t j = 0; j < kNr; ++j)
        for (size_t q = 0; q < kKr; ++q)
          sum[j] += static_cast<uint32_t>(int32_t{lhs[p + q]} * rhs[j * kKr + q]);
    for (size_t j = 0; j < kNr; ++j) dst[j] = static_cast<int32_t>(sum[j]);
  }
}

}  // namespace

void gemm_s8_4x8c4_scalar(const GemmS8Params& params) { tile<4, uint8_t, int8_t>(params); }

void gemm_s8_4x8c2_scalar(const GemmS8Params& params) { tile<2, int16_t, int16_t>(params); }

}  // namespace lepton
