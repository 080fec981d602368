// A 3x32 tile over quads of p whose pairs were proved to fit 16 bits: vpmaddubsw multiplies a
// broadcast quad of one lhs row with eight columns' quads straight from memory, vpmaddwd by ones
// adds up each quad for vpaddd. Twelve accumulators, a broadcast, a product and the ones fill
// fifteen of sixteen registers. The limit is the two pipes that multiply: a cycle for 32
// multiply-accumulates, in which one row reads a quad of weights, as fast as they come from L2.
#include "cpu/gemm_s8_pairs_avx2.h"

#include "ops/gemm_s8.h"

namespace lepton {
namespace {

template <size_t kRows, size_t kVectors>
void tile(const GemmS8Params& params) {
  __m256i ones_i16x16 = _mm256_set1_epi16(1);
  pin(ones_i16x16);
  __m256i sum[kRows][kVectors];
#pragma GCC unroll 3
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v)
      sum[i][v] =
          params.accumulate ? load(params.dst + (i * kVectors + v) * kNv) : _mm256_setzero_si256();
  const uint8_t* lhs = static_cast<const uint8_t*>(params.lhs);
  const int8_t* rhs = static_cast<const int8_t*>(params.rhs);
  constexpr size_t kStep = kVectors * kNv * kKr;
  size_t p = params.k;
  for (; p >= 2 * kKr; p -= 2 * kKr, lhs += 2 * kKr, rhs += 2 * kStep) {
    step(lhs, params.lhs_stride, rhs, ones_i16x16, sum);
    step(lhs + kKr, params.lhs_stride, rhs + kStep, ones_i16x16, sum);
  }
  if (p > 0) step(lhs, params.lhs_stride, rhs, ones_i16x16, sum);
#pragma GCC unroll 3
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v)
      _mm256_store_si256(reinterpret_cast<__m256i*>(params.dst + (i * kVectors + v) * kNv),
                         sum[i][v]);
}

template <size_t kVectors>
void rows(const GemmS8Params& params) {
  switch (params.m) {
    case 1: return tile<1, kVectors>(params);
    case 2: return tile<2, kVectors>(params);
    default: return tile<3, kVectors>(params);
  }
}

}  // namespace

void gemm_s8_3x32c4_avx2(const GemmS8Params& params) {
  switch (params.n / kNv) {
    case 1: return rows<1>(params);
    case 2: return rows<2>(params);
    case 3: return rows<3>(params);
    default: return rows<4>(params);
  }
}

}  // namespace lepton
