// The 6x16 tile of gemm_f32_avx2.cc with bias, residual and clamp added in registers: with few
// products a result, storing the sums and reading them again would take longer than making them.
// Where no more than 8 columns are left, half of the tile is computed. The limit is the two FMA
// pipes, or with 8 columns the loads of lhs.
#include <immintrin.h>

#include "ops/gemm_f32_fused.h"

namespace lepton {
namespace {

constexpr size_t kNv = 8, kNr = 2 * kNv;

// Keeps a value in its register at this point: without it GCC hoists every broadcast of a step
// above the arithmetic and spills accumulators.
inline void pin(__m256& v) { asm volatile("" : "+x"(v)); }

// The first `count` of eight columns.
struct Access {
  explicit Access(size_t count)
      : mask(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))),
        is_whole(count >= kNv) {}
  __m256 load(const float* p) const {
    return is_whole ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask);
  }
  void store(float* p, __m256 v) const {
    is_whole ? _mm256_storeu_ps(p, v) : _mm256_maskstore_ps(p, mask, v);
  }
  __m256i mask;
  bool is_whole;
};

template <size_t kRows, size_t kVectors>
inline void step(const float* lhs, size_t stride, const float* rhs,
                 __m256 (&sum)[kRows][kVectors]) {
  __m256 rhs_f32x8[kVectors];
#pragma GCC unroll 2
  for (size_t v = 0; v < kVectors; ++v) {
    rhs_f32x8[v] = _mm256_load_ps(rhs + v * kNv);
    pin(rhs_f32x8[v]);
  }
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    const float* const at = lhs + i * stride;
    const __m256 lhs_f32x8 = _mm256_broadcast_ss(at);
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) {
      sum[i][v] = _mm256_fmadd_ps(lhs_f32x8, rhs_f32x8[v], sum[i][v]);
      pin(sum[i][v]);
    }
  }
}

// Columns v · kNv and after of every row. Without a bias or a residual nothing is added: −0 + 0
// would be +0.
template <size_t kRows, size_t kVectors>
inline void finish(const GemmF32FusedParams& params, size_t v,
                   const __m256 (&sum)[kRows][kVectors]) {
  const Access access(params.n - v * kNv);
  const __m256 min_f32x8 = _mm256_set1_ps(params.min), max_f32x8 = _mm256_set1_ps(params.max);
  __m256 bias_f32x8 = _mm256_setzero_ps();
  if (params.bias != nullptr) bias_f32x8 = access.load(params.bias + v * kNv);
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    __m256 y_f32x8 = sum[i][v];
    if (params.bias != nullptr) y_f32x8 = _mm256_add_ps(y_f32x8, bias_f32x8);
    if (params.residual != nullptr)
      y_f32x8 = _mm256_add_ps(y_f32x8,
                              access.load(params.residual + i * params.residual_stride + v * kNv));
    // max and min return their second operand when either is NaN, so NaN passes through.
    y_f32x8 = _mm256_min_ps(max_f32x8, _mm256_max_ps(min_f32x8, y_f32x8));
    access.store(params.dst + i * params.dst_stride + v * kNv, y_f32x8);
  }
}

template <size_t kRows, size_t kVectors>
void tile(const GemmF32FusedParams& params) {
  __m256 sum[kRows][kVectors];
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) sum[i][v] = _mm256_setzero_ps();
  const float* lhs = params.lhs;
  const float* rhs = params.rhs;
  const float* next = params.prefetch == nullptr ? rhs : params.prefetch;
  for (size_t p = params.k; p > 0; --p, ++lhs, rhs += kNr, next += params.prefetch_step) {
    _mm_prefetch(next, _MM_HINT_T1);
    step(lhs, params.lhs_stride, rhs, sum);
  }
#pragma GCC unroll 2
  for (size_t v = 0; v < kVectors; ++v) finish(params, v, sum);
}

template <size_t kVectors>
void rows(const GemmF32FusedParams& params) {
  switch (params.m) {
    case 1: return tile<1, kVectors>(params);
    case 2: return tile<2, kVectors>(params);
    case 3: return tile<3, kVectors>(params);
    case 4: return tile<4, kVectors>(params);
    case 5: return tile<5, kVectors>(params);
    default: return tile<6, kVectors>(params);
  }
}

}  // namespace

void gemm_f32_fused_6x16_avx2(const GemmF32FusedParams& params) {
  params.n > kNv ? rows<2>(params) : rows<1>(params);
}

}  // namespace lepton
