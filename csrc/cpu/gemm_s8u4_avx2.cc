// vpmaddubsw multiplies unsigned weights by signed digits and adds pairs; of 4-bit weights eight
// such sums stay within 16 bits (8 · 2 · 15 · 128 = 30720), so 32 rows of weights need one
// widening. Those 32 rows of eight columns are unpacked into eight registers once, and every digit
// of every row of lhs passes by them; a single row takes all sixteen columns at once and shares its
// broadcasts. Four panels are walked in turns, group by group, so that memory serves several
// streams. With one row and three digits the limit is vector issue, some 64
// instructions for 256 weights, near what a core reads from memory.
#include <immintrin.h>

#include "ops/gemm_s8u4.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16;
constexpr size_t kHalf = 8;        // columns of a register
constexpr size_t kBlock = 32;      // rows that sixteen bits can add
constexpr size_t kWordBytes = 64;  // eight rows of sixteen columns
constexpr size_t kPrefetchBytes = 2048;

// Keeps a sum in its register and the arithmetic in program order.
inline void pin(__m256i& v) { asm volatile("" : "+x"(v)); }

template <size_t kRows, size_t kDigits>
struct Sums {
  __m256i v[kRows][kDigits];
};

// Adds to every row's and digit's sums those of 8 · kWords rows of weights for eight columns.
template <size_t kRows, size_t kDigits, size_t kWords>
inline void add_block(const uint8_t* words, bool ahead, const int8_t* lhs,
                      Sums<kRows, kDigits>& sums) {
  const __m256i nibble_u8x32 = _mm256_set1_epi8(15);
  const __m256i one_i16x16 = _mm256_set1_epi16(1);
  __m256i value_u8x32[kWords][2];
#pragma GCC unroll 4
  for (size_t w = 0; w < kWords; ++w) {
    const uint8_t* const word = words + w * kWordBytes;
    if (ahead) _mm_prefetch(reinterpret_cast<const char*>(word) + kPrefetchBytes, _MM_HINT_T0);
    const __m256i q_u8x32 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word));
    value_u8x32[w][0] = _mm256_and_si256(q_u8x32, nibble_u8x32);
    value_u8x32[w][1] = _mm256_and_si256(_mm256_srli_epi32(q_u8x32, 4), nibble_u8x32);
  }
  constexpr size_t kStride = kRows * kDigits * 8;
  for (size_t i = 0; i < kRows; ++i, lhs += kDigits * 8) {
#pragma GCC unroll 3
    for (size_t d = 0; d < kDigits; ++d) {
      const int8_t* digits = lhs + d * 8;
      __m256i sum_i16x16 = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (size_t w = 0; w < kWords; ++w, digits += kStride) {
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; ++half) {
          const __m256i lhs_s8x32 =
              _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(digits + half * 4));
          const __m256i pair_i16x16 = _mm256_maddubs_epi16(value_u8x32[w][half], lhs_s8x32);
          sum_i16x16 = w + half == 0 ? pair_i16x16 : _mm256_add_epi16(sum_i16x16, pair_i16x16);
        }
      }
      sums.v[i][d] = _mm256_add_epi32(sums.v[i][d], _mm256_madd_epi16(sum_i16x16, one_i16x16));
    }
  }
}

template <size_t kRows, size_t kDigits>
inline void sum_group(const uint8_t* words, bool ahead, size_t rows, const int8_t* lhs,
                      const int32_t* start, Sums<kRows, kDigits>& sums) {
  constexpr size_t kStride = kRows * kDigits * 8;
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (size_t d = 0; d < kDigits; ++d) sums.v[i][d] = _mm256_set1_epi32(start[i * kDigits + d]);
  size_t p = 0;
  for (; p + kBlock <= rows; p += kBlock, words += 4 * kWordBytes, lhs += 4 * kStride)
    add_block<kRows, kDigits, 4>(words, ahead, lhs, sums);
  for (; p < rows; p += 8, words += kWordBytes, lhs += kStride)
    add_block<kRows, kDigits, 1>(words, ahead, lhs, sums);
}

// dst += lhs_scale · scale · (sum − zero · lhs_sum) for eight columns, dst = … in the first group.
template <size_t kRows, size_t kDigits>
inline void finish_group(const GemmS8U4Params& params, const float* scale, const int8_t* zero,
                         size_t g, const Sums<kRows, kDigits>& sums, float* dst) {
  const __m256 scale_f32x8 = _mm256_loadu_ps(scale);
  __m256 zero_f32x8 = _mm256_setzero_ps();
  if (zero != nullptr)
    zero_f32x8 = _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zero))));
  for (size_t i = 0; i < kRows; ++i, dst += kPanelsS8U4 * kNr) {
    const size_t at = g * kRows + i;
    __m256 v_f32x8 = _mm256_cvtepi32_ps(sums.v[i][kDigits - 1]);
#pragma GCC unroll 2
    for (size_t d = 1; d < kDigits; ++d)
      v_f32x8 = _mm256_fmadd_ps(v_f32x8, _mm256_set1_ps(256.f),
                                _mm256_cvtepi32_ps(sums.v[i][kDigits - 1 - d]));
    if (zero != nullptr)
      v_f32x8 = _mm256_fnmadd_ps(zero_f32x8, _mm256_broadcast_ss(params.lhs_sum + at), v_f32x8);
    const __m256 by_f32x8 = _mm256_mul_ps(_mm256_broadcast_ss(params.lhs_scale + at), scale_f32x8);
    const __m256 before_f32x8 = g == 0 ? _mm256_setzero_ps() : _mm256_load_ps(dst);
    _mm256_store_ps(dst, _mm256_fmadd_ps(v_f32x8, by_f32x8, before_f32x8));
  }
}

template <size_t kRows, size_t kDigits>
void tile(const GemmS8U4Params& params) {
  const uint8_t* record = params.weights;
  const int8_t* lhs = params.lhs;
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const size_t rows = params.k - p < params.group ? params.k - p : params.group;
    const int32_t* const start = params.start + g * kRows * kDigits;
    for (size_t c = 0; c < params.panels; ++c) {
      const uint8_t* const panel = record + c * params.panel_stride;
      for (size_t j = 0; j < kNr; j += kHalf) {
        const size_t zero_at = c * params.panel_stride + g * kNr + j;
        Sums<kRows, kDigits> sums;
        // The first half asks for the lines that both read.
        sum_group<kRows, kDigits>(panel + kNr * sizeof(float) + j * 4, j == 0, rows, lhs, start,
                                  sums);
        finish_group<kRows, kDigits>(params, reinterpret_cast<const float*>(panel) + j,
                                     params.zero == nullptr ? nullptr : params.zero + zero_at, g,
                                     sums, params.dst + c * kNr + j);
      }
    }
    lhs += rows * kRows * kDigits;
    record += kNr * sizeof(float) + rows * kNr / 2;
  }
}

// One row against sixteen columns: 16-bit sums of every digit by halves.
template <size_t kDigits, bool kFirst>
inline void add_word_of_one(const uint8_t* word, const int8_t* lhs,
                            __m256i (&sum_i16x16)[2][kDigits]) {
  const __m256i nibble_u8x32 = _mm256_set1_epi8(15);
  _mm_prefetch(reinterpret_cast<const char*>(word) + kPrefetchBytes, _MM_HINT_T0);
  __m256i low_u8x32[2], high_u8x32[2];
#pragma GCC unroll 2
  for (size_t half = 0; half < 2; ++half) {
    const __m256i q_u8x32 =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word + half * kWordBytes / 2));
    low_u8x32[half] = _mm256_and_si256(q_u8x32, nibble_u8x32);
    high_u8x32[half] = _mm256_and_si256(_mm256_srli_epi32(q_u8x32, 4), nibble_u8x32);
  }
#pragma GCC unroll 3
  for (size_t d = 0; d < kDigits; ++d) {
    const auto* const digits = reinterpret_cast<const int32_t*>(lhs + d * 8);
    const __m256i left_s8x32 = _mm256_set1_epi32(digits[0]);
    const __m256i right_s8x32 = _mm256_set1_epi32(digits[1]);
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
      __m256i& sum = sum_i16x16[half][d];
      const __m256i low_i16x16 = _mm256_maddubs_epi16(low_u8x32[half], left_s8x32);
      sum = kFirst ? low_i16x16 : _mm256_add_epi16(sum, low_i16x16);
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(high_u8x32[half], right_s8x32));
      pin(sum);
    }
  }
}

// Adds to the sums of one row those of 8 · words rows of weights for sixteen columns: both halves
// share a broadcast of lhs, and six sums fit in registers where those of more rows would not. The
// two upper digits share 32-bit sums, s1 + 256 s2, which as floats are fma(s2, 256, s1) to the bit.
template <size_t kDigits>
inline void add_block_of_one(const uint8_t* word, size_t words, const int8_t* lhs,
                             __m256i (&low)[2], __m256i (&high)[2]) {
  const __m256i one_i16x16 = _mm256_set1_epi16(1);
  __m256i sum_i16x16[2][kDigits];
  add_word_of_one<kDigits, true>(word, lhs, sum_i16x16);
  for (size_t w = 1; w < words; ++w)
    add_word_of_one<kDigits, false>(word + w * kWordBytes, lhs + w * kDigits * 8, sum_i16x16);
#pragma GCC unroll 2
  for (size_t half = 0; half < 2; ++half) {
    low[half] = _mm256_add_epi32(low[half], _mm256_madd_epi16(sum_i16x16[half][0], one_i16x16));
    if constexpr (kDigits == 3) {
      high[half] = _mm256_add_epi32(high[half], _mm256_madd_epi16(sum_i16x16[half][1], one_i16x16));
      high[half] = _mm256_add_epi32(high[half],
                                    _mm256_madd_epi16(sum_i16x16[half][2], _mm256_set1_epi16(256)));
    }
  }
}

// finish_group for one row and its shared sums.
template <size_t kDigits>
inline void finish_one(const GemmS8U4Params& params, const float* scale, const int8_t* zero,
                       size_t g, __m256i low, __m256i high, float* dst) {
  __m256 v_f32x8 = _mm256_cvtepi32_ps(low);
  if constexpr (kDigits == 3)
    v_f32x8 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), _mm256_set1_ps(256.f), v_f32x8);
  if (zero != nullptr) {
    const __m256 zero_f32x8 = _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zero))));
    v_f32x8 = _mm256_fnmadd_ps(zero_f32x8, _mm256_broadcast_ss(params.lhs_sum + g), v_f32x8);
  }
  const __m256 by_f32x8 =
      _mm256_mul_ps(_mm256_broadcast_ss(params.lhs_scale + g), _mm256_loadu_ps(scale));
  const __m256 before_f32x8 = g == 0 ? _mm256_setzero_ps() : _mm256_load_ps(dst);
  _mm256_store_ps(dst, _mm256_fmadd_ps(v_f32x8, by_f32x8, before_f32x8));
}

template <size_t kDigits>
void tile_of_one(const GemmS8U4Params& params) {
  const uint8_t* record = params.weights;
  const int8_t* lhs = params.lhs;
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const size_t words = (params.k - p < params.group ? params.k - p : params.group) / 8;
    const int32_t* const start = params.start + g * kDigits;
    const int32_t start_high = kDigits == 3 ? start[1] + 256 * start[2] : 0;
    for (size_t c = 0; c < params.panels; ++c) {
      const uint8_t* const panel = record + c * params.panel_stride;
      __m256i low[2], high[2];
      low[0] = low[1] = _mm256_set1_epi32(start[0]);
      high[0] = high[1] = _mm256_set1_epi32(start_high);
      for (size_t w = 0; w < words; w += kBlock / 8)
        add_block_of_one<kDigits>(panel + kNr * sizeof(float) + w * kWordBytes,
                                  words - w < kBlock / 8 ? words - w : kBlock / 8,
                                  lhs + w * kDigits * 8, low, high);
#pragma GCC unroll 2
      for (size_t half = 0; half < 2; ++half) {
        const size_t j = half * kHalf;
        const int8_t* const zero =
            params.zero == nullptr ? nullptr : params.zero + c * params.panel_stride + g * kNr + j;
        finish_one<kDigits>(params, reinterpret_cast<const float*>(panel) + j, zero, g, low[half],
                            high[half], params.dst + c * kNr + j);
      }
    }
    lhs += words * kDigits * 8;
    record += kNr * sizeof(float) + words * kWordBytes;
  }
}

template <size_t kDigits>
void rows(const GemmS8U4Params& params) {
  switch (params.m) {
    case 1: return tile_of_one<kDigits>(params);
    case 2: return tile<2, kDigits>(params);
    case 3: return tile<3, kDigits>(params);
    case 4: return tile<4, kDigits>(params);
    case 5: return tile<5, kDigits>(params);
    case 6: return tile<6, kDigits>(params);
    case 7: return tile<7, kDigits>(params);
    default: return tile<8, kDigits>(params);
  }
}

}  // namespace

void gemm_s8u4_8x16c8_avx2(const GemmS8U4Params& params) {
  return params.digits == 1 ? rows<1>(params) : rows<3>(params);
}

}  // namespace lepton
