// The 12x32 tile of gemm_f32_avx512.cc with bias, residual and clamp added in registers: with few
// products a result, storing the sums and reading them again would take longer than making them.
// Where no more than 16 columns are left, half of the tile is computed. The limit is the two FMA
// pipes, or with 16 columns the loads of lhs.
#include <immintrin.h>

#include "ops/gemm_f32_fused.h"

namespace lepton {
namespace {

constexpr size_t kNv = 16, kNr = 2 * kNv;

// Keeps a value in its register at this point: without it GCC hoists every broadcast of a step
// above the arithmetic and spills accumulators.
inline void pin(__m512& v) { asm volatile("" : "+v"(v)); }

// The first `count` of sixteen columns.
struct Access {
  explicit Access(size_t count) : mask(count >= kNv ? 0xffff : (1u << count) - 1) {}
  __m512 load(const float* p) const { return _mm512_maskz_loadu_ps(mask, p); }
  void store(float* p, __m512 v) const { _mm512_mask_storeu_ps(p, mask, v); }
  __mmask16 mask;
};

template <size_t kRows, size_t kVectors>
inline void step(const float* lhs, size_t stride, const float* rhs,
                 __m512 (&sum)[kRows][kVectors]) {
  __m512 rhs_f32x16[kVectors];
#pragma GCC unroll 2
  for (size_t v = 0; v < kVectors; ++v) {
    rhs_f32x16[v] = _mm512_load_ps(rhs + v * kNv);
    pin(rhs_f32x16[v]);
  }
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    const float* const at = lhs + i * stride;
    const __m512 lhs_f32x16 = _mm512_set1_ps(*at);
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) {
      sum[i][v] = _mm512_fmadd_ps(lhs_f32x16, rhs_f32x16[v], sum[i][v]);
      pin(sum[i][v]);
    }
  }
}

// Columns v · kNv and after of every row. Without a bias or a residual nothing is added: −0 + 0
// would be +0.
template <size_t kRows, size_t kVectors>
inline void finish(const GemmF32FusedParams& params, size_t v,
                   const __m512 (&sum)[kRows][kVectors]) {
  const Access access(params.n - v * kNv);
  const __m512 min_f32x16 = _mm512_set1_ps(params.min), max_f32x16 = _mm512_set1_ps(params.max);
  __m512 bias_f32x16 = _mm512_setzero_ps();
  if (params.bias != nullptr) bias_f32x16 = access.load(params.bias + v * kNv);
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    __m512 y_f32x16 = sum[i][v];
    if (params.bias != nullptr) y_f32x16 = _mm512_add_ps(y_f32x16, bias_f32x16);
    if (params.residual != nullptr)
      y_f32x16 = _mm512_add_ps(y_f32x16,
                               access.load(params.residual + i * params.residual_stride + v * kNv));
    // max and min return their second operand when either is NaN, so NaN passes through.
    y_f32x16 = _mm512_min_ps(max_f32x16, _mm512_max_ps(min_f32x16, y_f32x16));
    access.store(params.dst + i * params.dst_stride + v * kNv, y_f32x16);
  }
}

template <size_t kRows, size_t kVectors>
void tile(const GemmF32FusedParams& params) {
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) sum[i][v] = _mm512_setzero_ps();
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
    case 6: return tile<6, kVectors>(params);
    case 7: return tile<7, kVectors>(params);
    case 8: return tile<8, kVectors>(params);
    case 9: return tile<9, kVectors>(params);
    case 10: return tile<10, kVectors>(params);
    case 11: return tile<11, kVectors>(params);
    default: return tile<12, kVectors>(params);
  }
}

}  // namespace

void gemm_f32_fused_12x32_avx512(const GemmF32FusedParams& params) {
  params.n > kNv ? rows<2>(params) : rows<1>(params);
}

}  // namespace lepton
