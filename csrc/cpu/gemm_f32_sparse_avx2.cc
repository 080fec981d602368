// The 6x16 tile of gemm_f32_avx2.cc over the stored rows of a panel: two loads of it and six
// broadcasts of the values of lhs that it meets feed twelve FMAs. The limit is the two FMA pipes,
// six cycles for 96 multiply-accumulates, as in the dense kernel, so what is skipped is gained;
// deep k adds lines of lhs that come from L2, of which few values are used.
#include <immintrin.h>

#include "ops/gemm_f32_sparse.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16;

// Keeps a value in its register at this point: without it GCC hoists the broadcasts above the
// arithmetic and spills accumulators.
inline void pin(__m256& v) { asm volatile("" : "+x"(v)); }

// One stored row against all rows of lhs.
template <size_t kRows>
inline void step(const float* lhs, size_t stride, const float* values, __m256 (&sum)[kRows][2]) {
  __m256 values0_f32x8 = _mm256_load_ps(values);
  __m256 values1_f32x8 = _mm256_load_ps(values + 8);
  pin(values0_f32x8);
  pin(values1_f32x8);
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    const __m256 lhs_f32x8 = _mm256_broadcast_ss(lhs + i * stride);
    sum[i][0] = _mm256_fmadd_ps(lhs_f32x8, values0_f32x8, sum[i][0]);
    sum[i][1] = _mm256_fmadd_ps(lhs_f32x8, values1_f32x8, sum[i][1]);
    pin(sum[i][0]);
    pin(sum[i][1]);
  }
}

template <size_t kRows>
void tile(const GemmF32SparseParams& params) {
  float* dst = params.dst;
  for (size_t p = 0; p < params.panels; ++p, dst += kNr) {
    __m256 sum[kRows][2];
#pragma GCC unroll 6
    for (size_t i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    const uint16_t* const end = params.index + params.starts[p + 1];
    const float* values = params.values + size_t{params.starts[p]} * kNr;
    for (const uint16_t* q = params.index + params.starts[p]; q < end; ++q, values += kNr)
      step<kRows>(params.lhs + *q, params.lhs_stride, values, sum);
#pragma GCC unroll 6
    for (size_t i = 0; i < kRows; ++i) {
      _mm256_store_ps(dst + i * kGemmF32SparseColumns, sum[i][0]);
      _mm256_store_ps(dst + i * kGemmF32SparseColumns + 8, sum[i][1]);
    }
  }
}

}  // namespace

void gemm_f32_sparse_6x16_avx2(const GemmF32SparseParams& params) {
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
