// One row, up to four panels of thirty-two columns: eight accumulators hide the FMA's latency of
// four cycles, which alone would let a single panel's two take 32 bytes of weights a cycle. Each
// weight is used once, so the limit is the bandwidth of wherever they come from.
#include <immintrin.h>

#include "ops/gemv_f32.h"

namespace lepton {
namespace {

constexpr size_t kNr = 32;

template <size_t kPanels>
void row(const GemvF32Params& params) {
  __m512 sum[kPanels][2];
#pragma GCC unroll 4
  for (size_t i = 0; i < kPanels; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
  const float* rhs = params.rhs;
  for (size_t p = 0; p < params.k; ++p, rhs += kNr) {
    const __m512 lhs_f32x16 = _mm512_set1_ps(params.lhs[p]);
#pragma GCC unroll 4
    for (size_t i = 0; i < kPanels; ++i) {
      const float* const panel = rhs + i * params.panel_stride;
      sum[i][0] = _mm512_fmadd_ps(lhs_f32x16, _mm512_load_ps(panel), sum[i][0]);
      sum[i][1] = _mm512_fmadd_ps(lhs_f32x16, _mm512_load_ps(panel + 16), sum[i][1]);
    }
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < kPanels; ++i) {
    _mm512_store_ps(params.dst + i * kNr, sum[i][0]);
    _mm512_store_ps(params.dst + i * kNr + 16, sum[i][1]);
  }
}

}  // namespace

void gemv_f32_4x32_avx512(const GemvF32Params& params) {
  switch (params.panels) {
    case 1: return row<1>(params);
    case 2: return row<2>(params);
    case 3: return row<3>(params);
    default: return row<4>(params);
  }
}

}  // namespace lepton
