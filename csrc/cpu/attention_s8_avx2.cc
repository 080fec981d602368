// Attention with 8-bit operands, eight lanes abreast: the passes of attention_s8_avx512.cc. Bound
// by the arithmetic of the second pass over the scores. Values go to int16 pairs or to quads of
// bytes, in one 32-bit lane a column either way.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx2.h"
#include "ops/attention_s8_kernels.h"

namespace lepton {
namespace {

inline __m256i magnitude(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}
inline __m256 load_lanes(const float* x, size_t n) {
  return n >= 8 ? _mm256_loadu_ps(x) : load_tail(x, n);
}
inline __m256i load_lanes(const int32_t* x, size_t n) {
  return _mm256_castps_si256(load_lanes(reinterpret_cast<const float*>(x), n));
}
inline void store_lanes(float* y, __m256 v, size_t n) {
  n >= 8 ? _mm256_storeu_ps(y, v) : store_tail(y, v, n);
}

// Eight ranges from the bits of amax, which order as the floats do, NaN last.
struct Range {
  __m256 inverse, scale;
  __m256i finite;
};
inline Range range_of(__m256i amax_bits) {
  const __m256 amax = _mm256_castsi256_ps(amax_bits);
  const __m256i finite = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x7f800000), amax_bits);
  const __m256 zero = _mm256_cmp_ps(amax, set1(1e-30f), _CMP_LT_OQ);
  Range range;
  range.finite = finite;
  range.inverse = select(zero, set1(0.0f), _mm256_div_ps(set1(127.0f), amax));
  range.scale = select(zero, set1(1.0f), _mm256_div_ps(amax, set1(127.0f)));
  range.scale = select(_mm256_castsi256_ps(finite), range.scale, set1(__builtin_nanf("")));
  return range;
}

inline __m256i round_all(__m256 x, const Range& range) {
  return _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(x, range.inverse)), range.finite);
}

inline Range row_range(const float* x, size_t k) {
  __m256i amax = _mm256_setzero_si256();
  for (size_t i = 0; i < k; i += 8)
    amax = _mm256_max_epu32(amax, magnitude(load_lanes(x + i, k - i)));
  amax = _mm256_max_epu32(amax, _mm256_permute2x128_si256(amax, amax, 1));
  amax = _mm256_max_epu32(amax, _mm256_shuffle_epi32(amax, 0x4e));
  amax = _mm256_max_epu32(amax, _mm256_shuffle_epi32(amax, 0xb1));
  return range_of(amax);
}

inline int32_t sum_lanes(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// Eight lanes, each within its element's range, as `n` elements (all eight where n >= 8).
inline void store(int16_t* p, __m256i q, size_t n) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
  if (n >= 8) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), words);
  alignas(16) int16_t lanes[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), words);
  for (size_t i = 0; i < n; ++i) p[i] = lanes[i];
}
inline void store(uint8_t* p, __m256i q, size_t n) {
  const __m256i low = _mm256_and_si256(q, _mm256_set1_epi32(0xff));
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  const __m128i bytes = _mm_packus_epi16(words, words);
  if (n >= 8) return _mm_storel_epi64(reinterpret_cast<__m128i*>(p), bytes);
  alignas(16) uint8_t lanes[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), bytes);
  for (size_t i = 0; i < n; ++i) p[i] = lanes[i];
}

// Returns the sum of what was rounded, lane by lane.
template <typename Element>
inline __m256i quantize_row(const float* x, size_t k, size_t k_padded, int offset, Element* dst,
                            float* scale) {
  const Range range = row_range(x, k);
  __m256i total = _mm256_setzero_si256();
  for (size_t i = 0; i < k; i += 8) {
    const __m256i q = round_all(load_lanes(x + i, k - i), range);
    total = _mm256_add_epi32(total, q);
    store(dst + i, _mm256_add_epi32(q, _mm256_set1_epi32(offset)), k - i);
  }
  for (size_t i = k; i < k_padded; ++i) dst[i] = 0;
  *scale = _mm256_cvtss_f32(range.scale);
  return total;
}

// Rows lie apart, where the hardware does not prefetch.
constexpr size_t kRowsAhead = 8;
inline void fetch_row(const float* x, size_t k) {
  for (size_t i = 0; i < k; i += 16)
    _mm_prefetch(reinterpret_cast<const char*>(x + i), _MM_HINT_T0);
}

void quantize_rows_s8(const float* x, size_t stride, size_t n, size_t k, size_t k_padded,
                      int offset, uint8_t* dst, float* scale, int32_t* sum) {
  for (size_t i = 0; i < n; ++i, x += stride, dst += k_padded) {
    fetch_row(x + kRowsAhead * stride, k);
    const __m256i total = quantize_row(x, k, k_padded, offset, dst, scale + i);
    if (sum != nullptr) sum[i] = sum_lanes(total);
  }
}

void quantize_rows_i16(const float* x, size_t stride, size_t n, size_t k, size_t k_padded,
                       int16_t* dst, float* scale) {
  for (size_t i = 0; i < n; ++i, x += stride, dst += k_padded) {
    fetch_row(x + kRowsAhead * stride, k);
    quantize_row(x, k, k_padded, 0, dst, scale + i);
  }
}

// kKr rows in one 32-bit lane a column.
template <size_t kKr>
inline __m256i interleaved(const __m256i (&q)[4]) {
  if (kKr == 2) return _mm256_blend_epi16(q[0], _mm256_slli_epi32(q[1], 16), 0xaa);
  const __m256i byte = _mm256_set1_epi32(0xff);
  const __m256i a = _mm256_and_si256(q[0], byte);
  const __m256i b = _mm256_slli_epi32(_mm256_and_si256(q[1], byte), 8);
  const __m256i c = _mm256_slli_epi32(_mm256_and_si256(q[2], byte), 16);
  return _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, _mm256_slli_epi32(q[3], 24)));
}

template <size_t kKr>
void pack_eight(const float* x, size_t stride, size_t n, size_t lanes, size_t width,
                int32_t* packed, float* scale) {
  __m256i amax = _mm256_setzero_si256();
  for (size_t j = 0; j < n; ++j)
    amax = _mm256_max_epu32(amax, magnitude(load_lanes(x + j * stride, lanes)));
  const Range range = range_of(amax);
  store_lanes(scale, range.scale, lanes);
  for (size_t j = 0; j < n; j += kKr, packed += width) {
    __m256i q[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < kKr; ++i)
      q[i] = j + i < n ? round_all(load_lanes(x + (j + i) * stride, lanes), range)
                       : _mm256_setzero_si256();
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed), interleaved<kKr>(q));
  }
}

template <size_t kKr>
void pack_values(const float* x, size_t stride, size_t n, size_t columns, size_t width,
                 void* packed, float* scale) {
  for (size_t c = 0; c < width; c += 8) {
    const size_t from = c < columns ? c : 0;
    pack_eight<kKr>(x + from, stride, n, c < columns ? columns - c : 0, width,
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

// t of eight keys from j on.
template <bool kPlain>
inline __m256 score(const AttentionS8Row& row, const int32_t* scores, size_t j) {
  const size_t left = row.last - j;
  const __m256 minus_infinity = set1(-__builtin_inff());
  __m256i sum = load_lanes(scores, left);
  if (row.correction != nullptr) sum = _mm256_sub_epi32(sum, load_lanes(row.correction + j, left));
  __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), load_lanes(row.key_scale + j, left));
  if (!kPlain && row.bias != nullptr) {
    const __m256 bias = load_lanes(row.bias + j, left);
    const __m256 scaled =
        _mm256_max_ps(_mm256_mul_ps(bias, set1(1.44269504f)), set1(-3.4028235e38f));
    t = _mm256_add_ps(_mm256_mul_ps(t, set1(row.scale)), scaled);
    t = select(_mm256_cmp_ps(bias, minus_infinity, _CMP_EQ_OQ), minus_infinity, t);
  }
  if (!kPlain && row.mask != nullptr) {
    alignas(8) uint8_t bytes[8] = {};
    __builtin_memcpy(bytes, row.mask + j, left < 8 ? left : 8);
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    const __m256i masked = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(eight), _mm256_setzero_si256());
    t = select(_mm256_castsi256_ps(masked), minus_infinity, t);
  }
  if (left < 8) t = select(_mm256_castsi256_ps(tail_mask(left)), t, minus_infinity);
  return t;
}

inline int32_t* panel_of(const AttentionS8Row& row, size_t panel, size_t* width) {
  *width = (panel + 1) * row.width <= row.n ? row.width : row.last_width;
  return row.scores + panel * row.panel_stride + row.row * *width;
}

// The maximum keeps its second operand where the first is NaN.
template <bool kPlain>
inline float scores_and_max(const AttentionS8Row& row) {
  __m256 max = set1(-__builtin_inff());
  for (size_t j = 0, panel = 0; j < row.last; ++panel) {
    size_t width;
    int32_t* scores = panel_of(row, panel, &width);
    const size_t end = j + width < row.last ? j + width : row.last;
    for (; j < end; j += 8, scores += 8) {
      const __m256 t = score<kPlain>(row, scores, j);
      _mm256_storeu_ps(reinterpret_cast<float*>(scores), t);
      max = _mm256_max_ps(t, max);
    }
  }
  return max_lanes(max);
}
float scores_row(const AttentionS8Row& row) {
  const bool plain = row.bias == nullptr && row.mask == nullptr;
  return plain ? scores_and_max<true>(row) : scores_and_max<false>(row);
}

inline __m256i probabilities(__m256 t, __m256 max, __m256 factor) {
  const __m256 z = _mm256_max_ps(_mm256_mul_ps(_mm256_sub_ps(t, max), factor), set1(-16.0f));
  const __m256 n = _mm256_round_ps(z, 8), f = _mm256_sub_ps(z, n);
  __m256 c = fma(set1(Exp2::c3), f, set1(Exp2::c2));
  c = fma(c, f, set1(Exp2::c1));
  c = fma(c, f, set1(Exp2::c0));
  return _mm256_cvtps_epi32(_mm256_mul_ps(c, power_of_two(_mm256_cvtps_epi32(n))));
}

template <typename Element>
int32_t exponentials_row(const AttentionS8Row& row, float largest) {
  auto* const p = static_cast<Element*>(row.p);
  const size_t padded = row.n_padded, last = row.last;
  const __m256 max = set1(largest), factor = set1(row.bias == nullptr ? row.scale : 1.0f);
  __m256i sum = _mm256_setzero_si256();
  size_t j = 0;
  for (size_t panel = 0; j < last; ++panel) {
    size_t width;
    const auto* t = reinterpret_cast<const float*>(panel_of(row, panel, &width));
    const size_t end = j + width < last ? j + width : last;
    for (; j < end; j += 8, t += 8) {
      const __m256i q = probabilities(_mm256_loadu_ps(t), max, factor);
      sum = _mm256_add_epi32(sum, q);
      store(p + j, q, padded - j);
    }
  }
  for (; j < padded; j += 8) store(p + j, _mm256_setzero_si256(), padded - j);
  return sum_lanes(sum);
}

}  // namespace

AttentionS8Kernels attention_s8_avx2() {
  return {quantize_rows_s8, quantize_rows_i16,         pack_values_s8,           pack_values_i16,
          scores_row,       exponentials_row<uint8_t>, exponentials_row<int16_t>};
}

}  // namespace lepton
