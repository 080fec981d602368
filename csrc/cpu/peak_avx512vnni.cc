// The instruction of the AVX512-VNNI GEMM kernels on registers alone.
#include <immintrin.h>

#include "ops/peak.h"

namespace lepton {

void peak_vpdpbusd_zmm_avx512vnni(size_t iterations) {
  __m512i lhs = _mm512_setzero_si512();
  __m512i sum[kPeakGroups];
#pragma GCC unroll 12
  for (size_t i = 0; i < kPeakGroups; ++i) sum[i] = lhs;
  for (; iterations > 0; --iterations) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kPeakGroups; ++i) {
      sum[i] = _mm512_dpbusd_epi32(sum[i], lhs, lhs);
      asm volatile("" : "+v"(sum[i]));
    }
  }
}

}  // namespace lepton
