// Attention with 8-bit operands, sixteen lanes abreast. Scores become bytes in two passes over a
// row in L1: to floats with their maximum, then the exponential, rounded as it is summed. Bound by
// the arithmetic of the second pass, some thirteen operations for sixteen scores; nothing wider
// than a byte leaves it.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx512.h"
#include "ops/attention_s8_kernels.h"

namespace lepton {
namespace {

inline __m512i magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

// The largest magnitude of a row as bits, which order as the floats do, NaN last, lane by lane.
inline __m512i row_amax(const float* x, size_t k) {
  __m512i amax = _mm512_setzero_si512();
  size_t i = 0;
  for (; i + 16 <= k; i += 16) amax = _mm512_max_epu32(amax, magnitude(_mm512_loadu_ps(x + i)));
  if (i < k) {
    const __m512 tail = _mm512_maskz_loadu_ps(first_lanes(k - i), x + i);
    amax = _mm512_max_epu32(amax, magnitude(tail));
  }
  return amax;
}

constexpr size_t kGroup = 16;  // rows whose lanes are reduced together

inline __m512i maximum(__m512i a, __m512i b) { return _mm512_max_epu32(a, b); }
inline __m512i total(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }

// Sixteen vectors to the results of their lanes, in order: a tree of halves, which takes a third of
// the instructions of one reduction after another.
template <__m512i (*join)(__m512i, __m512i)>
inline __m512i reduce_rows(const __m512i (&rows)[kGroup]) {
  __m512i fours[4];
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const __m512i a = rows[4 * i], b = rows[4 * i + 1], c = rows[4 * i + 2], d = rows[4 * i + 3];
    const __m512i ab = join(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = join(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    fours[i] = join(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  }
  const auto halves = [](__m512i a, __m512i b) {
    return join(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  };
  return halves(halves(fours[0], fours[1]), halves(fours[2], fours[3]));
}

// Sixteen ranges, of rows or of columns.
struct Ranges {
  __m512 inverse, scale;
  __mmask16 finite;
};
inline Ranges ranges_of(__m512i amax_bits) {
  const __m512 amax = _mm512_castsi512_ps(amax_bits);
  const __mmask16 finite = _mm512_cmplt_epi32_mask(amax_bits, _mm512_set1_epi32(0x7f800000));
  const __mmask16 zero = _mm512_cmp_ps_mask(amax, set16(1e-30f), _CMP_LT_OQ);
  Ranges ranges;
  ranges.finite = finite;
  ranges.inverse = _mm512_mask_blend_ps(zero, _mm512_div_ps(set16(127.0f), amax), set16(0.0f));
  ranges.scale = _mm512_mask_blend_ps(zero, _mm512_div_ps(amax, set16(127.0f)), set16(1.0f));
  ranges.scale = _mm512_mask_blend_ps(finite, set16(__builtin_nanf("")), ranges.scale);
  return ranges;
}

// Where inverse is 0, x may be infinite or NaN: no product is wanted then.
inline __m512i round_row(__m512 x, __m512 inverse, __mmask16 finite) {
  return _mm512_maskz_cvtps_epi32(finite, mul(x, inverse));
}

// Rows lie apart, where the hardware does not prefetch.
inline void fetch_row(const float* x, size_t k) {
  for (size_t i = 0; i < k; i += 16)
    _mm_prefetch(reinterpret_cast<const char*>(x + i), _MM_HINT_T0);
}

// 64 integers in four vectors as bytes in order; packs work within 128 bits.
inline __m512i in_order(__m512i packed) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, packed);
}
inline __m512i signed_bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
  return in_order(_mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)));
}
inline __m512i unsigned_bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
  return in_order(_mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)));
}

// The ranges of up to sixteen rows; their scales are stored.
inline Ranges group_ranges(const float* x, size_t stride, size_t n, size_t k, float* scale) {
  __m512i amax[kGroup];
  for (size_t i = 0; i < kGroup; ++i)
    amax[i] = i < n ? row_amax(x + i * stride, k) : _mm512_setzero_si512();
  const Ranges ranges = ranges_of(reduce_rows<maximum>(amax));
  _mm512_mask_storeu_ps(scale, first_lanes(n), ranges.scale);
  return ranges;
}

// What each row of a group is multiplied with, and whether it may be.
struct RowFactors {
  explicit RowFactors(const Ranges& ranges) : finite(ranges.finite) {
    _mm512_store_ps(inverse, ranges.inverse);
  }
  __mmask16 all(size_t i) const { return static_cast<__mmask16>(-((finite >> i) & 1)); }
  alignas(64) float inverse[kGroup];
  unsigned finite;
};

// Returns the sum of what was rounded, lane by lane.
inline __m512i quantize_row_s8(const float* x, size_t k, size_t k_padded, __m512i offset,
                               __m512 inverse, __mmask16 finite, uint8_t* dst) {
  const __m512i added = _mm512_broadcastb_epi8(_mm512_castsi512_si128(offset));
  __m512i sum = _mm512_setzero_si512();
  size_t i = 0;
  for (; i + 64 <= k; i += 64) {
    const __m512i a = round_row(_mm512_loadu_ps(x + i), inverse, finite);
    const __m512i b = round_row(_mm512_loadu_ps(x + i + 16), inverse, finite);
    const __m512i c = round_row(_mm512_loadu_ps(x + i + 32), inverse, finite);
    const __m512i d = round_row(_mm512_loadu_ps(x + i + 48), inverse, finite);
    sum = total(sum, total(total(a, b), total(c, d)));
    _mm512_storeu_si512(dst + i, _mm512_add_epi8(signed_bytes(a, b, c, d), added));
  }
  for (; i + 16 <= k; i += 16) {
    const __m512i q = round_row(_mm512_loadu_ps(x + i), inverse, finite);
    sum = total(sum, q);
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(q, offset));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), bytes);
  }
  if (i < k) {
    const __mmask16 lanes = first_lanes(k - i);
    const __m512i q = round_row(_mm512_maskz_loadu_ps(lanes, x + i), inverse, finite);
    sum = total(sum, q);
    _mm_mask_storeu_epi8(dst + i, lanes, _mm512_cvtepi32_epi8(_mm512_add_epi32(q, offset)));
    for (i = k; i < k_padded; ++i) dst[i] = 0;
  }
  return sum;
}

void quantize_rows_s8(const float* x, size_t stride, size_t n, size_t k, size_t k_padded,
                      int offset, uint8_t* dst, float* scale, int32_t* sum) {
  const __m512i offset_i32 = _mm512_set1_epi32(offset);
  for (size_t first = 0; first < n; first += kGroup, x += kGroup * stride) {
    const size_t rows = n - first < kGroup ? n - first : kGroup;
    const RowFactors by(group_ranges(x, stride, rows, k, scale + first));
    __m512i sums[kGroup];
    for (size_t i = 0; i < rows; ++i, dst += k_padded) {
      fetch_row(x + (i + kGroup) * stride, k);
      sums[i] = quantize_row_s8(x + i * stride, k, k_padded, offset_i32, set16(by.inverse[i]),
                                by.all(i), dst);
    }
    if (sum == nullptr) continue;
    for (size_t i = rows; i < kGroup; ++i) sums[i] = _mm512_setzero_si512();
    _mm512_mask_storeu_epi32(sum + first, first_lanes(rows), reduce_rows<total>(sums));
  }
}

void quantize_rows_i16(const float* x, size_t stride, size_t n, size_t k, size_t k_padded,
                       int16_t* dst, float* scale) {
  for (size_t first = 0; first < n; first += kGroup, x += kGroup * stride) {
    const size_t rows = n - first < kGroup ? n - first : kGroup;
    const RowFactors by(group_ranges(x, stride, rows, k, scale + first));
    for (size_t row = 0; row < rows; ++row, dst += k_padded) {
      fetch_row(x + (row + kGroup) * stride, k);
      for (size_t i = 0; i < k; i += 16) {
        const __mmask16 lanes = first_lanes(k - i);
        const __m512 v = _mm512_maskz_loadu_ps(lanes, x + row * stride + i);
        const __m512i q = round_row(v, set16(by.inverse[row]), by.all(row));
        _mm256_mask_storeu_epi16(dst + i, lanes, _mm512_cvtepi32_epi16(q));
      }
      for (size_t i = k; i < k_padded; ++i) dst[i] = 0;
    }
  }
}

// kKr rows in one 32-bit lane a column.
template <size_t kKr>
inline __m512i interleaved(const __m512i (&q)[4]) {
  if (kKr == 2) {
    const __m512i low = _mm512_and_si512(q[0], _mm512_set1_epi32(0xffff));
    return _mm512_or_si512(low, _mm512_slli_epi32(q[1], 16));
  }
  const __m512i byte = _mm512_set1_epi32(0xff);
  const __m512i a = _mm512_and_si512(q[0], byte);
  const __m512i b = _mm512_slli_epi32(_mm512_and_si512(q[1], byte), 8);
  const __m512i c = _mm512_slli_epi32(_mm512_and_si512(q[2], byte), 16);
  return _mm512_ternarylogic_epi32(_mm512_or_si512(a, b), c, _mm512_slli_epi32(q[3], 24), 0xfe);
}

template <size_t kKr>
void pack_sixteen(const float* x, size_t stride, size_t n, __mmask16 lanes, __mmask16 stored,
                  size_t width, int32_t* packed, float* scale) {
  __m512i amax = _mm512_setzero_si512();
  for (size_t j = 0; j < n; ++j)
    amax = _mm512_max_epu32(amax, magnitude(_mm512_maskz_loadu_ps(lanes, x + j * stride)));
  const Ranges ranges = ranges_of(amax);
  _mm512_mask_storeu_ps(scale, lanes, ranges.scale);
  for (size_t j = 0; j < n; j += kKr, packed += width) {
    __m512i q[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < kKr; ++i)
      q[i] = j + i < n ? round_row(_mm512_maskz_loadu_ps(lanes, x + (j + i) * stride),
                                   ranges.inverse, ranges.finite)
                       : _mm512_setzero_si512();
    _mm512_mask_storeu_epi32(packed, stored, interleaved<kKr>(q));
  }
}

template <size_t kKr>
void pack_values(const float* x, size_t stride, size_t n, size_t columns, size_t width,
                 void* packed, float* scale) {
  for (size_t c = 0; c < width; c += 16) {
    const __mmask16 lanes = c < columns ? first_lanes(columns - c) : __mmask16{0};
    const size_t from = c < columns ? c : 0;
    pack_sixteen<kKr>(x + from, stride, n, lanes, first_lanes(width - c), width,
                      static_cast<int32_t*>(packed) + c, scale + from);
  }
}
void pack_values_s8(const float* x, size_t stride, size_t n, size_t columns, size_t width,
                    int8_t* packed, float* scale) {
  pack_values<4>(x, stride, n, columns, width, packed, scale);
}
void pack_values_i16(const float* x, size_t stride, size_t n, size_t columns, size_t width,
                     int16_t* packed, float* scale) {
  pack_values<2>(x, stride, n, columns, width, packed, scale);
}

// t of sixteen keys from j on, of which `allowed` are before the last one.
template <bool kPlain>
inline __m512 score(const AttentionS8Row& row, const int32_t* scores, size_t j, __mmask16 allowed) {
  const __m512 minus_infinity = set16(-__builtin_inff());
  __m512i sum = _mm512_loadu_si512(scores);
  if (row.correction != nullptr)
    sum = _mm512_sub_epi32(sum, _mm512_maskz_loadu_epi32(allowed, row.correction + j));
  const __m512 key_scale = _mm512_maskz_loadu_ps(allowed, row.key_scale + j);
  __m512 t = mul(_mm512_cvtepi32_ps(sum), key_scale);
  if (!kPlain && row.bias != nullptr) {
    const __m512 bias = _mm512_maskz_loadu_ps(allowed, row.bias + j);
    allowed &= _mm512_cmp_ps_mask(bias, minus_infinity, _CMP_NEQ_UQ);
    const __m512 scaled = _mm512_max_ps(mul(bias, set16(1.44269504f)), set16(-3.4028235e38f));
    t = _mm512_add_ps(mul(t, set16(row.scale)), scaled);
  }
  if (!kPlain && row.mask != nullptr) {
    const __m128i bytes = _mm_maskz_loadu_epi8(allowed, row.mask + j);
    allowed &= _mm_test_epi8_mask(bytes, bytes);
  }
  return _mm512_mask_blend_ps(allowed, minus_infinity, t);
}

// Without masks and before the last key.
inline __m512 plain_score(const int32_t* scores, const int32_t* correction,
                          const float* key_scale) {
  __m512i sum = _mm512_loadu_si512(scores);
  if (correction != nullptr) sum = _mm512_sub_epi32(sum, _mm512_loadu_si512(correction));
  return mul(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(key_scale));
}

inline int32_t* panel_of(const AttentionS8Row& row, size_t panel, size_t* width) {
  *width = (panel + 1) * row.width <= row.n ? row.width : row.last_width;
  return row.scores + panel * row.panel_stride + row.row * *width;
}

// The maximum keeps its second operand where the first is NaN.
template <bool kPlain>
inline float scores_and_max(const AttentionS8Row& row) {
  __m512 max = set16(-__builtin_inff());
  const int32_t* const correction = row.correction;
  for (size_t j = 0, panel = 0; j < row.last; ++panel) {
    size_t width;
    int32_t* scores = panel_of(row, panel, &width);
    const size_t end = j + width < row.last ? j + width : row.last;
    for (; kPlain && j + 16 <= end; j += 16, scores += 16) {
      const int32_t* const off = correction == nullptr ? nullptr : correction + j;
      const __m512 t = plain_score(scores, off, row.key_scale + j);
      _mm512_storeu_ps(scores, t);
      max = _mm512_max_ps(t, max);
    }
    for (; j < end; j += 16, scores += 16) {
      const __m512 t = score<kPlain>(row, scores, j, first_lanes(row.last - j));
      _mm512_storeu_ps(scores, t);
      max = _mm512_max_ps(t, max);
    }
  }
  return _mm512_reduce_max_ps(max);
}
float scores_row(const AttentionS8Row& row) {
  const bool plain = row.bias == nullptr && row.mask == nullptr;
  return plain ? scores_and_max<true>(row) : scores_and_max<false>(row);
}

inline __m512i probabilities(__m512 t, __m512 max, __m512 factor) {
  const __m512 z = _mm512_max_ps(mul(sub(t, max), factor), set16(-16.0f));
  const __m512 n = _mm512_roundscale_ps(z, 8), f = sub(z, n);
  __m512 c = fma(set16(Exp2::c3), f, set16(Exp2::c2));
  c = fma(c, f, set16(Exp2::c1));
  c = fma(c, f, set16(Exp2::c0));
  return _mm512_cvtps_epi32(_mm512_scalef_ps(c, n));
}

inline void store(uint8_t* p, __m512i q) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(q));
}
inline void store(int16_t* p, __m512i q) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(q));
}
inline void store(uint8_t* p, __mmask16 lanes, __m512i q) {
  _mm_mask_storeu_epi8(p, lanes, _mm512_cvtepi32_epi8(q));
}
inline void store(int16_t* p, __mmask16 lanes, __m512i q) {
  _mm256_mask_storeu_epi16(p, lanes, _mm512_cvtepi32_epi16(q));
}

template <typename Element>
int32_t exponentials_row(const AttentionS8Row& row, float largest) {
  auto* const p = static_cast<Element*>(row.p);
  const size_t padded = row.n_padded, last = row.last;
  const __m512 max = set16(largest), factor = set16(row.bias == nullptr ? row.scale : 1.0f);
  __m512i sum = _mm512_setzero_si512();
  size_t j = 0;
  for (size_t panel = 0; j < last; ++panel) {
    size_t width;
    const int32_t* t = panel_of(row, panel, &width);
    const size_t end = j + width < last ? j + width : last;
    for (; sizeof(Element) == 1 && j + 64 <= end; j += 64, t += 64) {
      const __m512i q = unsigned_bytes(probabilities(_mm512_loadu_ps(t), max, factor),
                                       probabilities(_mm512_loadu_ps(t + 16), max, factor),
                                       probabilities(_mm512_loadu_ps(t + 32), max, factor),
                                       probabilities(_mm512_loadu_ps(t + 48), max, factor));
      sum = _mm512_add_epi32(sum, _mm512_sad_epu8(q, _mm512_setzero_si512()));
      _mm512_storeu_si512(p + j, q);
    }
    for (; j + 16 <= end; j += 16, t += 16) {
      const __m512i q = probabilities(_mm512_loadu_ps(t), max, factor);
      sum = _mm512_add_epi32(sum, q);
      store(p + j, q);
    }
    for (; j < end; j += 16, t += 16) {
      const __m512i q = probabilities(_mm512_loadu_ps(t), max, factor);
      sum = _mm512_add_epi32(sum, q);
      store(p + j, first_lanes(padded - j), q);
    }
  }
  for (; j < padded; j += 16) store(p + j, first_lanes(padded - j), _mm512_setzero_si512());
  return _mm512_reduce_add_epi32(sum);
}

}  // namespace

AttentionS8Kernels attention_s8_avx512() {
  return {quantize_rows_s8, quantize_rows_i16,         pack_values_s8,           pack_values_i16,
          scores_row,       exponentials_row<uint8_t>, exponentials_row<int16_t>};
}

}  // namespace lepton
