// Bytes are widened to integers on load and converted: three instructions for eight weights and one
// row of lhs, one more for each further row. Sums of a group stay in registers and meet their scale
// once. With one row the limit is memory, which is asked for 4 KB ahead because the hardware's own
// prefetch stops at every page; with six rows it is the FMA pipes.
#include <immintrin.h>

#include "ops/gemm_nbits.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16;
constexpr size_t kPrefetchBytes = 4096;

// Keeps a sum in its register and the arithmetic in program order.
inline void pin(__m256& v) { asm volatile("" : "+x"(v)); }

inline __m256 widen(const uint8_t* src) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(src))));
}

template <size_t kRows>
inline void step(const uint8_t* q, const float* lhs, size_t stride, __m256 (&sum)[kRows][2]) {
  const __m256 w0_f32x8 = widen(q);
  const __m256 w1_f32x8 = widen(q + 8);
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    const __m256 lhs_f32x8 = _mm256_broadcast_ss(lhs + i * stride);
    sum[i][0] = _mm256_fmadd_ps(w0_f32x8, lhs_f32x8, sum[i][0]);
    sum[i][1] = _mm256_fmadd_ps(w1_f32x8, lhs_f32x8, sum[i][1]);
    pin(sum[i][0]);
    pin(sum[i][1]);
  }
}

// Sums of one group. With few rows odd rows of weights have sums of their own, so that the FMAs do
// not wait for one another.
template <size_t kRows>
inline void sum_group(const uint8_t* q, size_t rows, const float* lhs, size_t stride,
                      __m256 (&sum)[kRows][2]) {
  constexpr bool kTwoChains = kRows <= 2;
  __m256 odd[kRows][2];
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i)
    sum[i][0] = sum[i][1] = odd[i][0] = odd[i][1] = _mm256_setzero_ps();
  size_t p = rows;
  for (; p >= 4; p -= 4, q += 4 * kNr, lhs += 4) {
    _mm_prefetch(reinterpret_cast<const char*>(q) + kPrefetchBytes, _MM_HINT_T0);
    step<kRows>(q, lhs, stride, sum);
    step<kRows>(q + kNr, lhs + 1, stride, kTwoChains ? odd : sum);
    step<kRows>(q + 2 * kNr, lhs + 2, stride, sum);
    step<kRows>(q + 3 * kNr, lhs + 3, stride, kTwoChains ? odd : sum);
  }
  for (; p > 0; --p, q += kNr, ++lhs) step<kRows>(q, lhs, stride, sum);
  if (!kTwoChains) return;
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    sum[i][0] = _mm256_add_ps(sum[i][0], odd[i][0]);
    sum[i][1] = _mm256_add_ps(sum[i][1], odd[i][1]);
  }
}

// dst += scale · (sum − zero · lhs_sum), dst = … in the first group.
template <size_t kRows>
inline void finish_group(const GemmNBitsParams& params, const float* scale, size_t g,
                         __m256 (&sum)[kRows][2]) {
#pragma GCC unroll 2
  for (size_t side = 0; side < 2; ++side) {
    const size_t j = side * 8;
    const __m256 scale_f32x8 = _mm256_loadu_ps(scale + j);
    __m256 zero_f32x8 = _mm256_setzero_ps();
    if (params.zero != nullptr)
      zero_f32x8 = widen(reinterpret_cast<const uint8_t*>(params.zero + g * kNr + j));
#pragma GCC unroll 6
    for (size_t i = 0; i < kRows; ++i) {
      float* const dst = params.dst + i * kNr + j;
      if (params.zero != nullptr)
        sum[i][side] = _mm256_fnmadd_ps(
            zero_f32x8, _mm256_broadcast_ss(params.lhs_sum + i * params.sum_stride + g),
            sum[i][side]);
      const __m256 before_f32x8 = g == 0 ? _mm256_setzero_ps() : _mm256_load_ps(dst);
      _mm256_store_ps(dst, _mm256_fmadd_ps(sum[i][side], scale_f32x8, before_f32x8));
    }
  }
}

template <size_t kRows>
void tile(const GemmNBitsParams& params) {
  const uint8_t* record = params.weights;
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const size_t rows = params.k - p < params.group ? params.k - p : params.group;
    const auto* const scale = reinterpret_cast<const float*>(record);
    record += kNr * sizeof(float);
    __m256 sum[kRows][2];
    sum_group<kRows>(record, rows, params.lhs + p, params.lhs_stride, sum);
    finish_group<kRows>(params, scale, g, sum);
    record += rows * kNr;
  }
}

}  // namespace

void gemm_f32s8_6x16_avx2(const GemmNBitsParams& params) {
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
