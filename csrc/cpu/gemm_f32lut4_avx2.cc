// Two byte shuffles look up both bytes of 32 bfloat16 values; interleaved they are sixteen pairs,
// one of a pair's halves becomes a float by a mask, the other by a shift. A pair lies in a lane of
// its column and the lane beside it holds another row of the same column, so lhs is broadcast two
// floats at a time and neighbouring lanes are added once a group. For 64 weights 19 vector
// instructions make floats of them and 8·m FMAs use them: with one row the limit is vector issue at
// about seven weights a cycle, near what memory delivers, which is asked for 4 KB ahead because the
// hardware's own prefetch stops at every page; with four rows it is the FMA pipes.
#include <immintrin.h>

#include "ops/gemm_nbits.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16;
constexpr size_t kPrefetchBytes = 4096;

// Keeps a sum in its register and the arithmetic in program order.
inline void pin(__m256& v) { asm volatile("" : "+x"(v)); }

// The table's second highest and highest bytes.
struct Table {
  __m256i low_u8x32, high_u8x32;
  explicit Table(const float* table) {
    const auto* const src = reinterpret_cast<const __m128i*>(table);
    const __m128i left_u16x8 = _mm_packus_epi32(_mm_srli_epi32(_mm_loadu_si128(src), 16),
                                                _mm_srli_epi32(_mm_loadu_si128(src + 1), 16));
    const __m128i right_u16x8 = _mm_packus_epi32(_mm_srli_epi32(_mm_loadu_si128(src + 2), 16),
                                                 _mm_srli_epi32(_mm_loadu_si128(src + 3), 16));
    const __m128i byte_u16x8 = _mm_set1_epi16(255);
    low_u8x32 = _mm256_broadcastsi128_si256(_mm_packus_epi16(
        _mm_and_si128(left_u16x8, byte_u16x8), _mm_and_si128(right_u16x8, byte_u16x8)));
    high_u8x32 = _mm256_broadcastsi128_si256(
        _mm_packus_epi16(_mm_srli_epi16(left_u16x8, 8), _mm_srli_epi16(right_u16x8, 8)));
  }
};

// Sums of eight columns: with few rows two chains a row, so that the FMAs do not wait for one
// another. [..][0] holds columns 0, 1, 4, 5 as pairs of lanes, [..][1] columns 2, 3, 6, 7.
template <size_t kRows>
struct Sums {
  static constexpr size_t kChains = kRows <= 2 ? 2 : 1;
  __m256 v[kRows][kChains][2];
};

// Products of one pair of rows: weights of eight columns, as Sums has them.
template <size_t kRows>
inline void add_products(__m256i left_u32x8, __m256i right_u32x8, const float* lhs, size_t stride,
                         size_t chain, Sums<kRows>& sums) {
  __m256 left_f32x8 = _mm256_castsi256_ps(left_u32x8);
  __m256 right_f32x8 = _mm256_castsi256_ps(right_u32x8);
  pin(left_f32x8);
  pin(right_f32x8);
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) {
    const __m256 lhs_f32x8 =
        _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(lhs + i * stride)));
    __m256(&sum)[2] = sums.v[i][chain];
    sum[0] = _mm256_fmadd_ps(left_f32x8, lhs_f32x8, sum[0]);
    sum[1] = _mm256_fmadd_ps(right_f32x8, lhs_f32x8, sum[1]);
    pin(sum[0]);
    pin(sum[1]);
  }
}

// Four rows of eight columns: their indices are the low halves of the bytes.
template <size_t kRows, size_t kChain>
inline void add_rows(const Table& table, __m256i index_u8x32, const float* lhs, size_t stride,
                     Sums<kRows>& sums) {
  const __m256i low_u8x32 = _mm256_shuffle_epi8(table.low_u8x32, index_u8x32);
  const __m256i high_u8x32 = _mm256_shuffle_epi8(table.high_u8x32, index_u8x32);
  const __m256i left_u32x8 = _mm256_unpacklo_epi8(low_u8x32, high_u8x32);
  const __m256i right_u32x8 = _mm256_unpackhi_epi8(low_u8x32, high_u8x32);
  const __m256i top_u32x8 = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
  add_products<kRows>(_mm256_slli_epi32(left_u32x8, 16), _mm256_slli_epi32(right_u32x8, 16), lhs,
                      stride, kChain, sums);
  add_products<kRows>(_mm256_and_si256(left_u32x8, top_u32x8),
                      _mm256_and_si256(right_u32x8, top_u32x8), lhs + 2, stride, kChain, sums);
}

// The sums of one group over eight columns, column j in lane j.
template <size_t kRows>
inline void sum_group(const Table& table, const uint8_t* words, size_t rows, const float* lhs,
                      size_t stride, __m256 (&sum)[kRows]) {
  Sums<kRows> sums;
  constexpr size_t kLast = Sums<kRows>::kChains - 1;
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (size_t chain = 0; chain <= kLast; ++chain)
      sums.v[i][chain][0] = sums.v[i][chain][1] = _mm256_setzero_ps();
  const __m256i nibble_u8x32 = _mm256_set1_epi8(15);
  for (size_t p = 0; p < rows; p += 8, words += kNr * 4, lhs += 8) {
    _mm_prefetch(reinterpret_cast<const char*>(words) + kPrefetchBytes, _MM_HINT_T0);
    const __m256i q_u32x8 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
    add_rows<kRows, 0>(table, _mm256_and_si256(q_u32x8, nibble_u8x32), lhs, stride, sums);
    const __m256i upper_u8x32 = _mm256_and_si256(_mm256_srli_epi32(q_u32x8, 4), nibble_u8x32);
    add_rows<kRows, kLast>(table, upper_u8x32, lhs + 4, stride, sums);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) {
    __m256(&first)[2] = sums.v[i][0];
    const __m256(&last)[2] = sums.v[i][kLast];
    if (kLast > 0) first[0] = _mm256_add_ps(first[0], last[0]);
    if (kLast > 0) first[1] = _mm256_add_ps(first[1], last[1]);
    sum[i] = _mm256_hadd_ps(first[0], first[1]);
  }
}

template <size_t kRows>
void tile(const GemmNBitsParams& params) {
  const Table table(params.table);
  const uint8_t* record = params.weights;
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const size_t rows = params.k - p < params.group ? params.k - p : params.group;
    const auto* const scale = reinterpret_cast<const float*>(record);
    record += kNr * sizeof(float);
#pragma GCC unroll 1
    for (size_t j = 0; j < kNr; j += 8) {
      __m256 sum[kRows];
      sum_group<kRows>(table, record + j * 4, rows, params.lhs + p, params.lhs_stride, sum);
      __m256 zero_f32x8 = _mm256_setzero_ps();
      if (params.zero != nullptr)
        zero_f32x8 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(params.zero + g * kNr + j))));
      const __m256 scale_f32x8 = _mm256_loadu_ps(scale + j);
#pragma GCC unroll 4
      for (size_t i = 0; i < kRows; ++i) {
        float* const dst = params.dst + i * kNr + j;
        if (params.zero != nullptr)
          sum[i] = _mm256_fnmadd_ps(
              zero_f32x8, _mm256_broadcast_ss(params.lhs_sum + i * params.sum_stride + g), sum[i]);
        const __m256 before_f32x8 = g == 0 ? _mm256_setzero_ps() : _mm256_load_ps(dst);
        _mm256_store_ps(dst, _mm256_fmadd_ps(sum[i], scale_f32x8, before_f32x8));
      }
    }
    record += rows * kNr / 2;
  }
}

}  // namespace

void gemm_f32lut4_4x16c8_avx2(const GemmNBitsParams& params) {
  switch (params.m) {
    case 1: return tile<1>(params);
    case 2: return tile<2>(params);
    case 3: return tile<3>(params);
    default: return tile<4>(params);
  }
}

}  // namespace lepton
