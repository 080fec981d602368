// One load, one shift and two ANDs make 128 unsigned weights of a cache line: eight rows of sixteen
// columns. vpdpbusd adds four rows of a digit to each column's sum; the digits of lhs are broadcast
// four bytes at a time, by a load or with the instruction. Panels are read side by side, so that
// memory serves several streams, each asked for ahead because the hardware's own prefetch stops at
// every page. With one row and three digits that is nine vector instructions a line, three times as
// fast as a core reads memory; from four rows on the dot products are the limit. A table takes two
// byte shuffles more.
#include <immintrin.h>

#include "ops/gemm_s8u4.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16;
constexpr size_t kLine = 64;
constexpr size_t kPrefetchBytes = 4096;  // of all panels read side by side

// Keeps a sum in its register and the arithmetic in program order.
inline void pin(__m512i& v) { asm volatile("" : "+v"(v)); }

template <size_t kRows, size_t kDigits, size_t kPanels>
struct Sums {
  __m512i v[kPanels][kRows][kDigits];
};

inline __m512i broadcast(const int8_t* digits) {
  return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(digits));
}

// Four rows of weights [panel] times half of the digits of one block of lhs.
template <size_t kRows, size_t kDigits, size_t kPanels>
inline void add_rows(const __m512i (&value)[kPanels], const int8_t* lhs,
                     Sums<kRows, kDigits, kPanels>& sums) {
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (size_t d = 0; d < kDigits; ++d) {
      const __m512i lhs_s8x64 = broadcast(lhs + (i * kDigits + d) * 8);
#pragma GCC unroll 4
      for (size_t c = 0; c < kPanels; ++c) {
        __m512i& sum = sums.v[c][i][d];
        sum = _mm512_dpbusd_epi32(sum, value[c], lhs_s8x64);
        pin(sum);
      }
    }
  }
}

template <bool kTable, size_t kRows, size_t kDigits, size_t kPanels>
inline void sum_group(__m512i table, const uint8_t* words, size_t stride, size_t rows,
                      const int8_t* lhs, const int32_t* start,
                      Sums<kRows, kDigits, kPanels>& sums) {
  const __m512i nibble_u8x64 = _mm512_set1_epi8(15);
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (size_t d = 0; d < kDigits; ++d)
#pragma GCC unroll 4
      for (size_t c = 0; c < kPanels; ++c)
        sums.v[c][i][d] = _mm512_set1_epi32(start[i * kDigits + d]);
  for (size_t p = 0; p < rows; p += 8, words += kLine, lhs += kRows * kDigits * 8) {
    __m512i low_u8x64[kPanels], high_u8x64[kPanels];
#pragma GCC unroll 4
    for (size_t c = 0; c < kPanels; ++c) {
      const uint8_t* const line = words + c * stride;
      _mm_prefetch(reinterpret_cast<const char*>(line) + kPrefetchBytes / kPanels, _MM_HINT_T0);
      const __m512i q_u8x64 = _mm512_loadu_si512(line);
      low_u8x64[c] = _mm512_and_si512(q_u8x64, nibble_u8x64);
      high_u8x64[c] = _mm512_and_si512(_mm512_srli_epi32(q_u8x64, 4), nibble_u8x64);
      if (!kTable) continue;
      low_u8x64[c] = _mm512_shuffle_epi8(table, low_u8x64[c]);
      high_u8x64[c] = _mm512_shuffle_epi8(table, high_u8x64[c]);
    }
    add_rows<kRows, kDigits, kPanels>(low_u8x64, lhs, sums);
    add_rows<kRows, kDigits, kPanels>(high_u8x64, lhs + 4, sums);
  }
}

// dst += lhs_scale · scale · (sum − zero · lhs_sum), dst = … in the first group.
template <size_t kRows, size_t kDigits>
inline void finish_group(const GemmS8U4Params& params, const float* scale, const int8_t* zero,
                         size_t g, const __m512i (&sum)[kRows][kDigits], float* dst) {
  const __m512 scale_f32x16 = _mm512_loadu_ps(scale);
  __m512 zero_f32x16 = _mm512_setzero_ps();
  if (zero != nullptr)
    zero_f32x16 = _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zero + g * kNr))));
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i, dst += kPanelsS8U4 * kNr) {
    __m512 v_f32x16 = _mm512_cvtepi32_ps(sum[i][kDigits - 1]);
#pragma GCC unroll 2
    for (size_t d = 1; d < kDigits; ++d)
      v_f32x16 = _mm512_fmadd_ps(v_f32x16, _mm512_set1_ps(256.f),
                                 _mm512_cvtepi32_ps(sum[i][kDigits - 1 - d]));
    if (zero != nullptr)
      v_f32x16 =
          _mm512_fnmadd_ps(zero_f32x16, _mm512_set1_ps(params.lhs_sum[g * kRows + i]), v_f32x16);
    const __m512 by_f32x16 =
        _mm512_mul_ps(_mm512_set1_ps(params.lhs_scale[g * kRows + i]), scale_f32x16);
    const __m512 before_f32x16 = g == 0 ? _mm512_setzero_ps() : _mm512_load_ps(dst);
    _mm512_store_ps(dst, _mm512_fmadd_ps(v_f32x16, by_f32x16, before_f32x16));
  }
}

// kPanels panels from `first` on.
template <bool kTable, size_t kRows, size_t kDigits, size_t kPanels>
void panels(const GemmS8U4Params& params, size_t first) {
  const size_t stride = params.panel_stride;
  const uint8_t* record = params.weights + first * stride;
  const int8_t* const zero = params.zero == nullptr ? nullptr : params.zero + first * stride;
  const int8_t* lhs = params.lhs;
  __m512i table = _mm512_setzero_si512();
  if (kTable)
    table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(params.table)));
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const size_t rows = params.k - p < params.group ? params.k - p : params.group;
    const uint8_t* const words = record + kNr * sizeof(float);
    Sums<kRows, kDigits, kPanels> sums;
    sum_group<kTable>(table, words, stride, rows, lhs, params.start + g * kRows * kDigits, sums);
#pragma GCC unroll 4
    for (size_t c = 0; c < kPanels; ++c) {
      const uint8_t* const scale = record + c * stride;
      _mm_prefetch(reinterpret_cast<const char*>(scale) + kPrefetchBytes / kPanels, _MM_HINT_T0);
      finish_group<kRows, kDigits>(params, reinterpret_cast<const float*>(scale),
                                   zero == nullptr ? nullptr : zero + c * stride, g, sums.v[c],
                                   params.dst + (first + c) * kNr);
    }
    lhs += rows * kRows * kDigits;
    record = words + rows * kNr / 2;
  }
}

// Side by side as many panels as leave their sums in registers.
template <bool kTable, size_t kRows, size_t kDigits>
void tile(const GemmS8U4Params& params) {
  constexpr size_t kSums = kRows * kDigits;
  constexpr size_t kPanels = kSums <= 4 ? 4 : kSums <= 9 ? 2 : 1;
  size_t c = 0;
  for (; c + kPanels <= params.panels; c += kPanels)
    panels<kTable, kRows, kDigits, kPanels>(params, c);
  for (; c < params.panels; ++c) panels<kTable, kRows, kDigits, 1>(params, c);
}

template <bool kTable, size_t kDigits>
void rows(const GemmS8U4Params& params) {
  switch (params.m) {
    case 1: return tile<kTable, 1, kDigits>(params);
    case 2: return tile<kTable, 2, kDigits>(params);
    case 3: return tile<kTable, 3, kDigits>(params);
    case 4: return tile<kTable, 4, kDigits>(params);
    case 5: return tile<kTable, 5, kDigits>(params);
    case 6: return tile<kTable, 6, kDigits>(params);
    case 7: return tile<kTable, 7, kDigits>(params);
    default: return tile<kTable, 8, kDigits>(params);
  }
}

}  // namespace

void gemm_s8u4_8x16c8_avx512vnni(const GemmS8U4Params& params) {
  return params.digits == 1 ? rows<false, 1>(params) : rows<false, 3>(params);
}

void gemm_s8lut4_8x16c8_avx512vnni(const GemmS8U4Params& params) {
  return params.digits == 1 ? rows<true, 1>(params) : rows<true, 3>(params);
}

}  // namespace lepton
