// One row, up to four panels of sixteen columns: eight accumulators hide the FMA's latency of four
// cycles. Each p costs one broadcast and a load for every FMA, so the limit is the load ports from
// L1 (64 bytes a cycle), and beyond it the bandwidth of the weights: each is used once.
#include <immintrin.h>

#include "ops/gemv_f32.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16;

template <size_t kPanels>
void row(const GemvF32Params& params) {
  __m256 sum[kPanels][2];
#pragma GCC unroll 4
  for (size_t i = 0; i < kPanels; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_ps();
  const float* rhs = params.rhs;
  for (size_t p = 0; p < params.k; ++p, rhs += kNr) {
    const __m256 lhs_f32x8 = _mm256_broadcast_ss(params.lhs + p);
#pragma GCC unroll 4
    for (size_t i = 0; i < kPanels; ++i) {
      const float* const panel = rhs + i * params.panel_stride;
      sum[i][0] = _mm256_fmadd_ps(lhs_f32x8, _mm256_load_ps(panel), sum[i][0]);
      sum[i][1] = _mm256_fmadd_ps(lhs_f32x8, _mm256_load_ps(panel + 8), sum[i][1]);
    }
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < kPanels; ++i) {
    _mm256_store_ps(params.dst + i * kNr, sum[i][0]);
    _mm256_store_ps(params.dst + i * kNr + 8, sum[i][1]);
  }
}

}  // namespace

void gemv_f32_4x16_avx2(const GemvF32Params& params) {
  switch (params.panels) {
    case 1: return row<1>(params);
    case 2: return row<2>(params);
    case 3: return row<3>(params);
    default: return row<4>(params);
  }
}

}  // namespace lepton
