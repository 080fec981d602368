// Attention, sixteen lanes abreast, as attention_avx2.cc does it with eight: two passes over a
// row's block of scores in L1, the maximum and the exponentials, bound by the polynomial of 2^x;
// masks are mask registers. Packing is bound by strided reads, so it is that of AVX2. The unpacked
// kernels read keys and values once from memory, which is their limit.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/attention_pack_avx2.h"
#include "cpu/math_avx512.h"
#include "ops/attention_kernels.h"

namespace lepton {
namespace {

// Keys j … j + 15 with first <= key < last.
inline __mmask16 allowed_lanes(size_t j, size_t first, size_t last) {
  const __mmask16 below = j < first ? first_lanes(first - j) : __mmask16{0};
  const __mmask16 within = j < last ? first_lanes(last - j) : __mmask16{0};
  return static_cast<__mmask16>(within & ~below);
}

inline __m512 masked_score(const AttentionRow& row, const float* scores, size_t j) {
  __mmask16 allowed = allowed_lanes(j, row.first, row.last);
  __m512 t = mul(_mm512_loadu_ps(scores), set16(row.scale));
  if (row.softcap != 0)
    t = mul(tanh_f32x16(_mm512_div_ps(t, set16(row.softcap))), set16(row.softcap));
  const __m512 infinity = set16(__builtin_inff());
  if (row.bias != nullptr) {
    const __m512 bias = _mm512_maskz_loadu_ps(allowed, row.bias + j);
    t = _mm512_add_ps(t, bias);
    allowed &= _mm512_cmp_ps_mask(bias, sub(_mm512_setzero_ps(), infinity), _CMP_NEQ_UQ);
  }
  if (row.mask != nullptr) {
    const __m128i bytes = _mm_maskz_loadu_epi8(allowed, row.mask + j);
    allowed &= _mm_test_epi8_mask(bytes, bytes);
  }
  return _mm512_mask_blend_ps(allowed, sub(_mm512_setzero_ps(), infinity), t);
}

constexpr float kLog2E = 1.442695041f;

// Masked scores into p, `used` of them, and their maximum. It keeps its second operand where the
// first is NaN, so that NaN scores reach the exponentials and the sum instead.
inline float masked_scores(const AttentionRow& row, size_t used) {
  __m512 max = set16(*row.max);
  const float* panel = row.scores;
  for (size_t j = 0; j < used; panel += row.panel_stride)
    for (size_t lane = 0; lane < row.width && j < used; lane += 16, j += 16) {
      const __m512 t = masked_score(row, panel + lane, j);
      _mm512_storeu_ps(row.p + j, t);
      max = _mm512_max_ps(t, max);
    }
  return _mm512_reduce_max_ps(max);
}

inline float masked_exponentials(float* p, size_t used, float max) {
  __m512 sum = _mm512_setzero_ps();
  for (size_t j = 0; j < used; j += 16) {
    const __m512 z = mul(sub(_mm512_loadu_ps(p + j), set16(max)), set16(kLog2E));
    const __m512 e = exp2_f32x16(z);
    _mm512_storeu_ps(p + j, e);
    sum = _mm512_add_ps(sum, e);
  }
  return _mm512_reduce_add_ps(sum);
}

// A row whose keys up to the last are all allowed is read from the panels twice.
inline float plain_max(const AttentionRow& row) {
  const size_t last = row.last, width = row.width;
  __m512 max0 = set16(-__builtin_inff()), max1 = max0;
  const float* panel = row.scores;
  for (size_t j = 0; j < last; j += width, panel += row.panel_stride)
    for (size_t lane = 0; lane < width; lane += 32) {
      if (j + lane + 32 <= last && lane + 32 <= width) {
        max0 = _mm512_max_ps(_mm512_loadu_ps(panel + lane), max0);
        max1 = _mm512_max_ps(_mm512_loadu_ps(panel + lane + 16), max1);
        continue;
      }
      for (size_t i = lane; i < width && i < lane + 32 && j + i < last; i += 16) {
        const __mmask16 lanes = first_lanes(last - j - i);
        max0 = _mm512_mask_max_ps(max0, lanes, _mm512_loadu_ps(panel + i), max0);
      }
    }
  const float max = _mm512_reduce_max_ps(_mm512_max_ps(max0, max1)) * row.scale;
  return *row.max > max ? *row.max : max;
}

inline float plain_exponentials(const AttentionRow& row, float max) {
  const size_t last = row.last, width = row.width;
  const __m512 factor = set16(row.scale * kLog2E), offset = set16(-max * kLog2E);
  __m512 sum = _mm512_setzero_ps();
  const float* panel = row.scores;
  float* const p = row.p;
  for (size_t j = 0; j < last; j += width, panel += row.panel_stride)
    for (size_t lane = 0; lane < width && j + lane < last; lane += 16) {
      __m512 e = exp2_f32x16(fma(_mm512_loadu_ps(panel + lane), factor, offset));
      const size_t left = last - j - lane;
      if (left < 16) e = _mm512_maskz_mov_ps(first_lanes(left), e);
      _mm512_storeu_ps(p + j + lane, e);
      sum = _mm512_add_ps(sum, e);
    }
  return _mm512_reduce_add_ps(sum);
}

float softmax_row(const AttentionRow& row) {
  const size_t padded = (row.n + row.width - 1) / row.width * row.width;
  const bool plain = row.first == 0 && row.softcap == 0 && row.bias == nullptr &&
                     row.mask == nullptr && row.scale > 0;
  const size_t used = (row.last + 15) / 16 * 16;
  const float max = plain ? plain_max(row) : masked_scores(row, used);
  const bool none = max == -__builtin_inff();
  const float from = none ? 0.0f : max;
  const float sum = plain ? plain_exponentials(row, from) : masked_exponentials(row.p, used, from);
  for (size_t j = used; j < padded; j += 16) _mm512_storeu_ps(row.p + j, _mm512_setzero_ps());
  if (none || *row.max == -__builtin_inff() || *row.max == max) {
    *row.sum += sum;
    *row.max = max;
    return 1.0f;
  }
  const float correction = _mm512_cvtss_f32(exp_f32x16(set16(*row.max - max)));
  *row.sum = *row.sum * correction + sum;
  *row.max = max;
  return correction;
}

// kKeys dot products at once hide the latency of the additions.
template <size_t kKeys>
inline void dot_keys(const float* q, const float* keys, size_t stride, size_t depth,
                     float* scores) {
  __m512 sum[kKeys];
#pragma GCC unroll 8
  for (size_t i = 0; i < kKeys; ++i) sum[i] = _mm512_setzero_ps();
  for (size_t d = 0; d < depth; d += 16) {
    const __mmask16 lanes = first_lanes(depth - d);
    const __m512 x = _mm512_maskz_loadu_ps(lanes, q + d);
#pragma GCC unroll 8
    for (size_t i = 0; i < kKeys; ++i)
      sum[i] = fma(x, _mm512_maskz_loadu_ps(lanes, keys + i * stride + d), sum[i]);
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < kKeys; ++i) scores[i] = _mm512_reduce_add_ps(sum[i]);
}

void dot(const float* q, const float* keys, size_t stride, size_t n, size_t depth, float* scores) {
  size_t j = 0;
  for (; j + 8 <= n; j += 8) dot_keys<8>(q, keys + j * stride, stride, depth, scores + j);
  for (; j < n; ++j) dot_keys<1>(q, keys + j * stride, stride, depth, scores + j);
}

// 16 * kVectors columns stay in registers while all values pass by.
template <size_t kVectors>
inline void accumulate_columns(const float* p, const float* values, size_t stride, size_t n,
                               float correction, float* y) {
  __m512 sum[kVectors];
#pragma GCC unroll 8
  for (size_t i = 0; i < kVectors; ++i)
    sum[i] = mul(_mm512_loadu_ps(y + 16 * i), set16(correction));
  for (size_t j = 0; j < n; ++j) {
    const __m512 w = set16(p[j]);
#pragma GCC unroll 8
    for (size_t i = 0; i < kVectors; ++i)
      sum[i] = fma(w, _mm512_loadu_ps(values + j * stride + 16 * i), sum[i]);
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < kVectors; ++i) _mm512_storeu_ps(y + 16 * i, sum[i]);
}

void accumulate(const float* p, const float* values, size_t stride, size_t n, size_t depth,
                float correction, float* y) {
  size_t c = 0;
  for (; c + 64 <= depth; c += 64)
    accumulate_columns<4>(p, values + c, stride, n, correction, y + c);
  for (; c + 16 <= depth; c += 16)
    accumulate_columns<1>(p, values + c, stride, n, correction, y + c);
  if (c == depth) return;
  const __mmask16 lanes = first_lanes(depth - c);
  __m512 sum = mul(_mm512_maskz_loadu_ps(lanes, y + c), set16(correction));
  for (size_t j = 0; j < n; ++j)
    sum = fma(set16(p[j]), _mm512_maskz_loadu_ps(lanes, values + j * stride + c), sum);
  _mm512_mask_storeu_ps(y + c, lanes, sum);
}

void scale(const float* x, size_t x_panel, float factor, size_t n, size_t width, float* y,
           size_t y_panel) {
  const __m512 factor_f32x16 = set16(factor);
  for (size_t c = 0; c < n; c += width, x += x_panel, y += y_panel) {
    const size_t count = n - c < width ? n - c : width;
    for (size_t i = 0; i < count; i += 16) {
      const __mmask16 lanes = first_lanes(count - i);
      _mm512_mask_storeu_ps(y + i, lanes, mul(_mm512_maskz_loadu_ps(lanes, x + i), factor_f32x16));
    }
  }
}

}  // namespace

AttentionKernels attention_f32_avx512() {
  return {softmax_row, pack_keys, pack_values, dot, accumulate, scale};
}

}  // namespace lepton
