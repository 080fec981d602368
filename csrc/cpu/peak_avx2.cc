// The instructions of the AVX2 GEMM kernels on registers alone. Operands are pinned in every step:
// GCC would otherwise compute a product of constants once.
#include <immintrin.h>

#include "ops/peak.h"

namespace lepton {
namespace {

template <typename V>
inline void pin(V& v) {
  asm volatile("" : "+x"(v));
}

// step(sum, lhs): one group of instructions on an accumulator.
template <typename V, typename Step>
inline void repeat(size_t iterations, V lhs, const Step& step) {
  V sum[kPeakGroups];
#pragma GCC unroll 12
  for (size_t i = 0; i < kPeakGroups; ++i) sum[i] = lhs;
  for (; iterations > 0; --iterations) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kPeakGroups; ++i) {
      pin(lhs);
      sum[i] = step(sum[i], lhs);
      pin(sum[i]);
    }
  }
}

}  // namespace

void peak_vpmaddubsw_run4_avx2(size_t iterations) {
  const __m256i ones = _mm256_set1_epi16(1);
  repeat(iterations, _mm256_setzero_si256(), [&](__m256i sum, __m256i lhs) {
    __m256i run = _mm256_maddubs_epi16(lhs, lhs);
    pin(run);
#pragma GCC unroll 3
    for (int q = 1; q < 4; ++q) {
      pin(lhs);
      run = _mm256_add_epi16(run, _mm256_maddubs_epi16(lhs, lhs));
      pin(run);
    }
    return _mm256_add_epi32(sum, _mm256_madd_epi16(run, ones));
  });
}

void peak_vpmaddubsw_vpmaddwd_avx2(size_t iterations) {
  const __m256i ones = _mm256_set1_epi16(1);
  repeat(iterations, _mm256_setzero_si256(), [&](__m256i sum, __m256i lhs) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(lhs, lhs), ones));
  });
}

void peak_vpmaddwd_avx2(size_t iterations) {
  repeat(iterations, _mm256_setzero_si256(), [](__m256i sum, __m256i lhs) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(lhs, lhs));
  });
}

void peak_fma_avx2(size_t iterations) {
  repeat(iterations, _mm256_setzero_ps(),
         [](__m256 sum, __m256 lhs) { return _mm256_fmadd_ps(lhs, lhs, sum); });
}

}  // namespace lepton
