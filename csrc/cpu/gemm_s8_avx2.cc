// A 6x16 tile over pairs of p: vpmaddwd multiplies a broadcast pair of one lhs row with eight
// columns' pairs and adds each pair, vpaddd accumulates. Twelve accumulators, two registers of rhs,
// one broadcast and one product fill the sixteen registers. The limit is the vector pipes: 24
// arithmetic instructions a step for 192 multiply-accumulates.
#include <immintrin.h>

#include "ops/gemm_s8.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16, kKr = 2;

// Keeps a value in its register at this point: without it GCC hoists every broadcast of a step
// above the arithmetic and spills accumulators, which halves the rate.
inline void pin(__m256i& v) { asm volatile("" : "+x"(v)); }

inline __m256i broadcast_pair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return _mm256_set1_epi32(pair);
}

template <size_t kRows>
inline void step(const int16_t* lhs, size_t stride, const int16_t* rhs, __m256i (&sum)[kRows][2]) {
  __m256i rhs0_i16x16 = _mm256_load_si256(reinterpret_cast<const __m256i*>(rhs));
  __m256i rhs1_i16x16 = _mm256_load_si256(reinterpret_cast<const __m256i*>(rhs + 16));
  pin(rhs0_i16x16);
  pin(rhs1_i16x16);
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    const __m256i lhs_i16x16 = broadcast_pair(lhs + i * stride);
    sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(lhs_i16x16, rhs0_i16x16));
    pin(sum[i][0]);
    sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(lhs_i16x16, rhs1_i16x16));
    pin(sum[i][1]);
  }
}

template <size_t kRows>
void tile(const GemmS8Params& params) {
  __m256i sum[kRows][2];
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    const __m256i* const dst = reinterpret_cast<const __m256i*>(params.dst + i * kNr);
    sum[i][0] = params.accumulate ? _mm256_load_si256(dst) : _mm256_setzero_si256();
    sum[i][1] = params.accumulate ? _mm256_load_si256(dst + 1) : _mm256_setzero_si256();
  }
  const int16_t* lhs = static_cast<const int16_t*>(params.lhs);
  const int16_t* rhs = static_cast<const int16_t*>(params.rhs);
  size_t p = params.k;
  for (; p >= 4 * kKr; p -= 4 * kKr, lhs += 4 * kKr, rhs += 4 * kKr * kNr) {
    step<kRows>(lhs, params.lhs_stride, rhs, sum);
    step<kRows>(lhs + kKr, params.lhs_stride, rhs + kKr * kNr, sum);
    step<kRows>(lhs + 2 * kKr, params.lhs_stride, rhs + 2 * kKr * kNr, sum);
    step<kRows>(lhs + 3 * kKr, params.lhs_stride, rhs + 3 * kKr * kNr, sum);
  }
  for (; p > 0; p -= kKr, lhs += kKr, rhs += kKr * kNr)
    step<kRows>(lhs, params.lhs_stride, rhs, sum);
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    __m256i* const dst = reinterpret_cast<__m256i*>(params.dst + i * kNr);
    _mm256_store_si256(dst, sum[i][0]);
    _mm256_store_si256(dst + 1, sum[i][1]);
  }
}

}  // namespace

void gemm_s8_6x16c2_avx2(const GemmS8Params& params) {
  switch (params.m) {
    case 1: return tile<1>(params);
    case 2: return tile<2>(params);
    case 3: return tile<3>(params);
    case 4: return tile<4>(params);
    case 5: return tile<5>(params);
    default: return tile<6>(params);
  }
}

}  // namespace lepton
