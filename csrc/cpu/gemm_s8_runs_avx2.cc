// An 8x32 tile, eight columns after eight, over runs of quads of p: vpmaddubsw multiplies a
// broadcast quad of one lhs row with eight columns' quads and adds pairs into int16, vpaddw sums
// the run there, which the packer proved safe, and one vpmaddwd by ones widens it for vpaddd. Eight
// accumulators and a run's four registers of rhs leave room for two products in flight. The limit
// is the vector pipes: nine instructions for a run of four and a row, 128 multiply-accumulates,
// where widening every product takes twelve.
#include <immintrin.h>

#include "cpu/gemm_s8_runs_avx2.h"
#include "ops/gemm_s8.h"

namespace lepton {
namespace {

template <size_t kRows>
void tile(const GemmS8Params& params) {
  __m256i ones_i16x16 = _mm256_set1_epi16(1);
  pin(ones_i16x16);
  const Rows rows(params.lhs_stride);
  const int8_t* rhs = static_cast<const int8_t*>(params.rhs);
  for (size_t j = 0; j < params.n; j += kStripColumns) {
    __m256i sum[kRows];
#pragma GCC unroll 8
    for (size_t i = 0; i < kRows; ++i) {
      const int32_t* const dst = params.dst + i * params.n + j;
      sum[i] = params.accumulate ? _mm256_load_si256(reinterpret_cast<const __m256i*>(dst))
                                 : _mm256_setzero_si256();
    }
    rhs = add_strip(rhs, static_cast<const uint8_t*>(params.lhs), rows, ones_i16x16, sum);
#pragma GCC unroll 8
    for (size_t i = 0; i < kRows; ++i)
      _mm256_store_si256(reinterpret_cast<__m256i*>(params.dst + i * params.n + j), sum[i]);
  }
}

}  // namespace

void gemm_s8_8x32c4_avx2(const GemmS8Params& params) {
  switch (params.m) {
    case 1: return tile<1>(params);
    case 2: return tile<2>(params);
    case 3: return tile<3>(params);
    case 4: return tile<4>(params);
    case 5: return tile<5>(params);
    case 6: return tile<6>(params);
    case 7: return tile<7>(params);
    default: return tile<8>(params);
  }
}

}  // namespace lepton
