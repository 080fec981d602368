// vpermps reads its index from the low four bits of a lane, so a shift and one permutation make
// sixteen floats of sixteen indices, whatever the table. Two registers of columns share a broadcast
// of lhs. With one row the limit is vector issue (three instructions for sixteen weights), above
// what a core gets from memory, which is asked for 4 KB ahead because the hardware's own prefetch
// stops at every page; with eight rows it is the FMA pipes.
#include <immintrin.h>

#include "ops/gemm_nbits.h"

namespace lepton {
namespace {

constexpr size_t kNr = 32;
constexpr size_t kPrefetchBytes = 4096;

// Keeps a sum in its register and the arithmetic in program order.
inline void pin(__m512& v) { asm volatile("" : "+v"(v)); }

// Sums of 32 columns: with few rows two chains, so that the FMAs do not wait for one another.
template <size_t kRows>
struct Sums {
  static constexpr size_t kChains = kRows <= 2 ? 2 : 1;
  __m512 v[kRows][kChains][2];
};

// One row of weights: slot kSlot of every word.
template <size_t kRows, int kSlot>
inline void add_row(__m512 table, __m512i left_u32x16, __m512i right_u32x16, const float* lhs,
                    size_t stride, Sums<kRows>& sums) {
  constexpr size_t kRow = kSlot / 4 + kSlot % 2 * 4 + kSlot / 2 % 2 * 2;
  constexpr size_t kChain = kSlot % Sums<kRows>::kChains;
  const __m512 w0_f32x16 = _mm512_permutexvar_ps(_mm512_srli_epi32(left_u32x16, 4 * kSlot), table);
  const __m512 w1_f32x16 = _mm512_permutexvar_ps(_mm512_srli_epi32(right_u32x16, 4 * kSlot), table);
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i) {
    const __m512 lhs_f32x16 = _mm512_set1_ps(lhs[i * stride + kRow]);
    __m512(&sum)[2] = sums.v[i][kChain];
    sum[0] = _mm512_fmadd_ps(w0_f32x16, lhs_f32x16, sum[0]);
    sum[1] = _mm512_fmadd_ps(w1_f32x16, lhs_f32x16, sum[1]);
    pin(sum[0]);
    pin(sum[1]);
  }
}

template <size_t kRows>
inline void sum_group(__m512 table, const uint8_t* words, size_t rows, const float* lhs,
                      size_t stride, Sums<kRows>& sums) {
  constexpr size_t kChains = Sums<kRows>::kChains;
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (size_t chain = 0; chain < kChains; ++chain)
      sums.v[i][chain][0] = sums.v[i][chain][1] = _mm512_setzero_ps();
  for (size_t p = 0; p < rows; p += 8, words += kNr * 4, lhs += 8) {
    const auto* const ahead = reinterpret_cast<const char*>(words) + kPrefetchBytes;
    _mm_prefetch(ahead, _MM_HINT_T0);
    _mm_prefetch(ahead + 64, _MM_HINT_T0);
    const __m512i left_u32x16 = _mm512_loadu_si512(words);
    const __m512i right_u32x16 = _mm512_loadu_si512(words + 64);
    add_row<kRows, 0>(table, left_u32x16, right_u32x16, lhs, stride, sums);
    add_row<kRows, 1>(table, left_u32x16, right_u32x16, lhs, stride, sums);
    add_row<kRows, 2>(table, left_u32x16, right_u32x16, lhs, stride, sums);
    add_row<kRows, 3>(table, left_u32x16, right_u32x16, lhs, stride, sums);
    add_row<kRows, 4>(table, left_u32x16, right_u32x16, lhs, stride, sums);
    add_row<kRows, 5>(table, left_u32x16, right_u32x16, lhs, stride, sums);
    add_row<kRows, 6>(table, left_u32x16, right_u32x16, lhs, stride, sums);
    add_row<kRows, 7>(table, left_u32x16, right_u32x16, lhs, stride, sums);
  }
  if (kChains == 1) return;
#pragma GCC unroll 2
  for (size_t i = 0; i < kRows; ++i) {
    sums.v[i][0][0] = _mm512_add_ps(sums.v[i][0][0], sums.v[i][kChains - 1][0]);
    sums.v[i][0][1] = _mm512_add_ps(sums.v[i][0][1], sums.v[i][kChains - 1][1]);
  }
}

// dst += scale · (sum − zero · lhs_sum) for sixteen columns from j on.
template <size_t kRows>
inline void finish_group(const GemmNBitsParams& params, const float* scale, size_t g, size_t j,
                         const Sums<kRows>& sums) {
  const __m512 scale_f32x16 = _mm512_loadu_ps(scale + j);
  __m512 zero_f32x16 = _mm512_setzero_ps();
  if (params.zero != nullptr)
    zero_f32x16 = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(params.zero + g * kNr + j))));
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i) {
    float* const dst = params.dst + i * kNr + j;
    __m512 sum_f32x16 = sums.v[i][0][j / 16];
    if (params.zero != nullptr)
      sum_f32x16 = _mm512_fnmadd_ps(
          zero_f32x16, _mm512_set1_ps(params.lhs_sum[i * params.sum_stride + g]), sum_f32x16);
    const __m512 before_f32x16 = g == 0 ? _mm512_setzero_ps() : _mm512_load_ps(dst);
    _mm512_store_ps(dst, _mm512_fmadd_ps(sum_f32x16, scale_f32x16, before_f32x16));
  }
}

template <size_t kRows>
void tile(const GemmNBitsParams& params) {
  const __m512 table = _mm512_loadu_ps(params.table);
  const uint8_t* record = params.weights;
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const size_t rows = params.k - p < params.group ? params.k - p : params.group;
    const auto* const scale = reinterpret_cast<const float*>(record);
    record += kNr * sizeof(float);
    Sums<kRows> sums;
    sum_group<kRows>(table, record, rows, params.lhs + p, params.lhs_stride, sums);
    finish_group<kRows>(params, scale, g, 0, sums);
    finish_group<kRows>(params, scale, g, 16, sums);
    record += rows * kNr / 2;
  }
}

}  // namespace

void gemm_f32lut4_8x32c8_avx512(const GemmNBitsParams& params) {
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
