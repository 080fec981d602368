// Attention, eight lanes abreast. The softmax of a row takes two passes over its block of scores in
// L1: their maximum (masked ones are stored), then exponentials with their sum; it is bound by the
// polynomial of 2^x. Masked lanes are replaced, never multiplied, so that an infinite score
// under a mask does no harm. Keys are packed by 8x8 transposes in registers. The unpacked kernels
// serve one query at a time, where reading keys and values once from memory is the limit.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/attention_pack_avx2.h"
#include "cpu/math_avx2.h"
#include "ops/attention_kernels.h"

namespace lepton {
namespace {

inline __m256 minus_infinity() { return set1(-__builtin_inff()); }

inline __m256i lane_numbers() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }

// Lanes of keys j … j + 7 with first <= key < last.
inline __m256 allowed_lanes(size_t j, size_t first, size_t last) {
  const auto from = static_cast<int32_t>(static_cast<int64_t>(first) - static_cast<int64_t>(j));
  const auto to = static_cast<int32_t>(static_cast<int64_t>(last) - static_cast<int64_t>(j));
  const __m256i lane = lane_numbers();
  const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(from), lane);
  const __m256i within = _mm256_cmpgt_epi32(_mm256_set1_epi32(to), lane);
  return _mm256_castsi256_ps(_mm256_andnot_si256(below, within));
}

// Lanes whose mask byte is not zero; reads only the n bytes of the row.
inline __m256 mask_lanes(const uint8_t* mask, size_t j, size_t n) {
  __m128i bytes;
  if (j + 8 <= n) {
    bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask + j));
  } else {
    alignas(8) uint8_t tail[8] = {};
    for (size_t i = 0; j + i < n; ++i) tail[i] = mask[j + i];
    bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(tail));
  }
  const __m256i zero = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_setzero_si256());
  return _mm256_castsi256_ps(_mm256_xor_si256(zero, _mm256_set1_epi32(-1)));
}

inline __m256 masked_score(const AttentionRow& row, const float* scores, size_t j) {
  __m256 allowed = allowed_lanes(j, row.first, row.last);
  __m256 t = _mm256_mul_ps(_mm256_loadu_ps(scores), set1(row.scale));
  if (row.softcap != 0)
    t = _mm256_mul_ps(tanh_f32x8(_mm256_div_ps(t, set1(row.softcap))), set1(row.softcap));
  if (row.bias != nullptr) {
    const __m256 bias = _mm256_maskload_ps(row.bias + j, _mm256_castps_si256(allowed));
    t = _mm256_add_ps(t, bias);
    allowed = and_(allowed, _mm256_cmp_ps(bias, minus_infinity(), _CMP_NEQ_UQ));
  }
  if (row.mask != nullptr) allowed = and_(allowed, mask_lanes(row.mask, j, row.n));
  return select(allowed, t, minus_infinity());
}

constexpr float kLog2E = 1.442695041f;

// Masked scores into p, `used` of them, and their maximum. It keeps its second operand where the
// first is NaN, so that NaN scores reach the exponentials and the sum instead.
inline float masked_scores(const AttentionRow& row, size_t used) {
  __m256 max = set1(*row.max);
  const float* panel = row.scores;
  for (size_t j = 0; j < used; panel += row.panel_stride)
    for (size_t lane = 0; lane < row.width && j < used; lane += 8, j += 8) {
      const __m256 t = masked_score(row, panel + lane, j);
      _mm256_storeu_ps(row.p + j, t);
      max = _mm256_max_ps(t, max);
    }
  return max_lanes(max);
}

inline float masked_exponentials(float* p, size_t used, float max) {
  __m256 sum = _mm256_setzero_ps();
  for (size_t j = 0; j < used; j += 8) {
    const __m256 t = _mm256_sub_ps(_mm256_loadu_ps(p + j), set1(max));
    const __m256 e = exp2_f32x8(_mm256_mul_ps(t, set1(kLog2E)));
    _mm256_storeu_ps(p + j, e);
    sum = _mm256_add_ps(sum, e);
  }
  return sum_lanes(sum);
}

// Scores of two panels at once, where there are as many: four chains that do not wait for each
// other.
constexpr size_t kPanel = 16, kChains = 4;
inline bool has_pairs(const AttentionRow& row, size_t j) {
  return row.width == kPanel && j + 2 * kPanel <= row.last;
}
inline __m256 chain_scores(const AttentionRow& row, const float* panel, size_t chain) {
  return _mm256_loadu_ps(panel + chain / 2 * row.panel_stride + chain % 2 * 8);
}

// A row whose keys up to the last are all allowed is read from the panels twice.
inline float plain_max(const AttentionRow& row) {
  const size_t last = row.last, width = row.width;
  __m256 max[kChains];
#pragma GCC unroll 4
  for (size_t c = 0; c < kChains; ++c) max[c] = minus_infinity();
  const float* panel = row.scores;
  size_t j = 0;
  for (; has_pairs(row, j); j += 2 * kPanel, panel += 2 * row.panel_stride)
#pragma GCC unroll 4
    for (size_t c = 0; c < kChains; ++c)
      max[c] = _mm256_max_ps(chain_scores(row, panel, c), max[c]);
  for (; j < last; j += width, panel += row.panel_stride)
    for (size_t lane = 0; lane < width && j + lane < last; lane += 8) {
      const __m256 t = _mm256_loadu_ps(panel + lane);
      const size_t left = last - j - lane;
      const __m256 allowed =
          left < 8 ? select(_mm256_castsi256_ps(tail_mask(left)), t, minus_infinity()) : t;
      max[0] = _mm256_max_ps(allowed, max[0]);
    }
  const __m256 both = _mm256_max_ps(_mm256_max_ps(max[0], max[1]), _mm256_max_ps(max[2], max[3]));
  const float largest = max_lanes(both) * row.scale;
  return *row.max > largest ? *row.max : largest;
}

inline float plain_exponentials(const AttentionRow& row, float max) {
  const size_t last = row.last, width = row.width;
  const __m256 factor = set1(row.scale * kLog2E), offset = set1(-max * kLog2E);
  __m256 sum[kChains];
#pragma GCC unroll 4
  for (size_t c = 0; c < kChains; ++c) sum[c] = _mm256_setzero_ps();
  const float* panel = row.scores;
  float* const p = row.p;
  size_t j = 0;
  for (; has_pairs(row, j); j += 2 * kPanel, panel += 2 * row.panel_stride)
#pragma GCC unroll 4
    for (size_t c = 0; c < kChains; ++c) {
      const __m256 e = exp2_f32x8(fma(chain_scores(row, panel, c), factor, offset));
      _mm256_storeu_ps(p + j + 8 * c, e);
      sum[c] = _mm256_add_ps(sum[c], e);
    }
  for (; j < last; j += width, panel += row.panel_stride)
    for (size_t lane = 0; lane < width && j + lane < last; lane += 8) {
      __m256 e = exp2_f32x8(fma(_mm256_loadu_ps(panel + lane), factor, offset));
      const size_t left = last - j - lane;
      if (left < 8) e = and_(_mm256_castsi256_ps(tail_mask(left)), e);
      _mm256_storeu_ps(p + j + lane, e);
      sum[0] = _mm256_add_ps(sum[0], e);
    }
  return sum_lanes(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

float softmax_row(const AttentionRow& row) {
  const size_t padded = (row.n + row.width - 1) / row.width * row.width;
  const bool plain = row.first == 0 && row.softcap == 0 && row.bias == nullptr &&
                     row.mask == nullptr && row.scale > 0;
  const size_t used = (row.last + 7) / 8 * 8;
  const float max = plain ? plain_max(row) : masked_scores(row, used);
  const bool none = max == -__builtin_inff();
  const float from = none ? 0.0f : max;
  const float sum = plain ? plain_exponentials(row, from) : masked_exponentials(row.p, used, from);
  for (size_t j = used; j < padded; ++j) row.p[j] = 0.0f;
  if (none || *row.max == -__builtin_inff() || *row.max == max) {
    *row.sum += sum;
    *row.max = max;
    return 1.0f;
  }
  const float correction = _mm256_cvtss_f32(exp_f32x8(set1(*row.max - max)));
  *row.sum = *row.sum * correction + sum;
  *row.max = max;
  return correction;
}

// kKeys dot products at once hide the latency of the additions.
template <size_t kKeys>
inline void dot_keys(const float* q, const float* keys, size_t stride, size_t depth,
                     float* scores) {
  __m256 sum[kKeys];
  for (size_t i = 0; i < kKeys; ++i) sum[i] = _mm256_setzero_ps();
  size_t d = 0;
  for (; d + 8 <= depth; d += 8) {
    const __m256 x = _mm256_loadu_ps(q + d);
    for (size_t i = 0; i < kKeys; ++i)
      sum[i] = fma(x, _mm256_loadu_ps(keys + i * stride + d), sum[i]);
  }
  if (d < depth) {
    const __m256 x = load_tail(q + d, depth - d);
    for (size_t i = 0; i < kKeys; ++i)
      sum[i] = fma(x, load_tail(keys + i * stride + d, depth - d), sum[i]);
  }
  for (size_t i = 0; i < kKeys; ++i) scores[i] = sum_lanes(sum[i]);
}

void dot(const float* q, const float* keys, size_t stride, size_t n, size_t depth, float* scores) {
  size_t j = 0;
  for (; j + 8 <= n; j += 8) dot_keys<8>(q, keys + j * stride, stride, depth, scores + j);
  for (; j < n; ++j) dot_keys<1>(q, keys + j * stride, stride, depth, scores + j);
}

// 8 * kVectors columns stay in registers while all values pass by.
template <size_t kVectors>
inline void accumulate_columns(const float* p, const float* values, size_t stride, size_t n,
                               float correction, float* y) {
  __m256 sum[kVectors];
  for (size_t i = 0; i < kVectors; ++i)
    sum[i] = _mm256_mul_ps(_mm256_loadu_ps(y + 8 * i), set1(correction));
  for (size_t j = 0; j < n; ++j) {
    const __m256 w = _mm256_broadcast_ss(p + j);
    for (size_t i = 0; i < kVectors; ++i)
      sum[i] = fma(w, _mm256_loadu_ps(values + j * stride + 8 * i), sum[i]);
  }
  for (size_t i = 0; i < kVectors; ++i) _mm256_storeu_ps(y + 8 * i, sum[i]);
}

void accumulate(const float* p, const float* values, size_t stride, size_t n, size_t depth,
                float correction, float* y) {
  size_t c = 0;
  for (; c + 64 <= depth; c += 64)
    accumulate_columns<8>(p, values + c, stride, n, correction, y + c);
  for (; c + 8 <= depth; c += 8) accumulate_columns<1>(p, values + c, stride, n, correction, y + c);
  if (c == depth) return;
  const size_t lanes = depth - c;
  __m256 sum = _mm256_mul_ps(load_tail(y + c, lanes), set1(correction));
  for (size_t j = 0; j < n; ++j)
    sum = fma(set1(p[j]), load_tail(values + j * stride + c, lanes), sum);
  store_tail(y + c, sum, lanes);
}

void scale(const float* x, size_t x_panel, float factor, size_t n, size_t width, float* y,
           size_t y_panel) {
  const __m256 factor_f32x8 = set1(factor);
  for (size_t c = 0; c < n; c += width, x += x_panel, y += y_panel) {
    const size_t count = n - c < width ? n - c : width;
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
      _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), factor_f32x8));
    if (i < count)
      store_tail(y + i, _mm256_mul_ps(load_tail(x + i, count - i), factor_f32x8), count - i);
  }
}

}  // namespace

AttentionKernels attention_f32_avx2() {
  return {softmax_row, pack_keys, pack_values, dot, accumulate, scale};
}

}  // namespace lepton
