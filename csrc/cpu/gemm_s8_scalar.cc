// The references, one for each form of the operands: one row of accumulators at a time, in unsigned
// arithmetic because the contract's sums wrap.
#include "ops/gemm_s8.h"
#include "ops/gemm_s8_windows.h"

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

void gemm_s8_windows_4x8c4_scalar(const GemmS8WindowsParams& params) {
  constexpr size_t kNr = 8, kKr = 4;
  for (size_t i = 0; i < params.m; ++i) {
    GemmS8Params stretch = {};
    stretch.m = 1;
    stretch.n = kNr;
    stretch.k = params.run;
    stretch.dst = params.dst + i * kNr;
    stretch.accumulate = params.accumulate;
    for (size_t r = 0; r < params.runs; ++r) {
      stretch.lhs = params.lhs[i] + params.offset + r * params.pitch;
      stretch.rhs = static_cast<const int8_t*>(params.rhs) + r * params.run * kNr;
      tile<kKr, uint8_t, int8_t>(stretch);
      stretch.accumulate = true;
    }
  }
}

void gemm_s8_4x8c2_scalar(const GemmS8Params& params) { tile<2, int16_t, int16_t>(params); }

}  // namespace lepton
