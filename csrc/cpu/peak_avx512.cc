// The instruction of the AVX-512 f32 kernels on registers alone.
#include <immintrin.h>

#include "ops/peak.h"

namespace lepton {

void peak_fma_zmm_avx512(size_t iterations) {
  __m512 lhs = _mm512_setzero_ps();
  __m512 sum[kPeakGroups];
#pragma GCC unroll 12
  for (size_t i = 0; i < kPeakGroups; ++i) sum[i] = lhs;
  for (; iterations > 0; --iterations) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kPeakGroups; ++i) {
      sum[i] = _mm512_fmadd_ps(lhs, lhs, sum[i]);
      asm volatile("" : "+v"(sum[i]));
    }
  }
}

}  // namespace lepton
