// 64 floats at a time, the last ones through masked loads: a pass for the range, with four extremes
// side by side to hide the latency of their comparisons, and a pass for the integers, whose
// quotients come from multiplications and which saturating packs round off, clamp and narrow. The
// row is in L1 for the second pass; bound by arithmetic, ten instructions for sixteen floats.
#include "cpu/quantize_avx512.h"
#include "ops/quantize_rows.h"

namespace lepton {
namespace {

inline __mmask16 mask_of(size_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1);
}

struct Range {
  __m512 low_f32x16 = _mm512_setzero_ps(), high_f32x16 = _mm512_setzero_ps();
  __m512 odd_f32x16 = _mm512_setzero_ps();  // sum of x · 0: zero unless NaN or infinite
  void take(__m512 x_f32x16) {
    low_f32x16 = _mm512_min_ps(x_f32x16, low_f32x16);
    high_f32x16 = _mm512_max_ps(x_f32x16, high_f32x16);
    odd_f32x16 = _mm512_fmadd_ps(x_f32x16, _mm512_setzero_ps(), odd_f32x16);
  }
  void take(const Range& other) {
    low_f32x16 = _mm512_min_ps(other.low_f32x16, low_f32x16);
    high_f32x16 = _mm512_max_ps(other.high_f32x16, high_f32x16);
    odd_f32x16 = _mm512_add_ps(odd_f32x16, other.odd_f32x16);
  }
  bool finite() const { return _mm512_cmp_ps_mask(odd_f32x16, odd_f32x16, _CMP_EQ_OQ) == 0xffff; }
};

struct Quantization {
  float scale, zero_point;
};

// A scale of NaN: a value is not finite.
Quantization range_of(const float* x, size_t k) {
  Range a, b, c, d;
  size_t p = 0;
  for (; p + 64 <= k; p += 64) {
    a.take(_mm512_loadu_ps(x + p));
    b.take(_mm512_loadu_ps(x + p + 16));
    c.take(_mm512_loadu_ps(x + p + 32));
    d.take(_mm512_loadu_ps(x + p + 48));
  }
  for (; p < k; p += 16) a.take(_mm512_maskz_loadu_ps(mask_of(k - p), x + p));
  a.take(b), c.take(d), a.take(c);
  if (!a.finite()) return {__builtin_nanf(""), 0.f};
  const float low = _mm512_reduce_min_ps(a.low_f32x16);
  const float high = _mm512_reduce_max_ps(a.high_f32x16);
  float scale = high / 255.f - low / 255.f;
  if (!(scale > 0.f)) scale = 1.f;
  const float zero_point =
      _mm_cvtss_f32(_mm_round_ss(_mm_setzero_ps(), _mm_set_ss(-low / scale), 8));
  return {scale, zero_point > 255.f ? 255.f : zero_point};
}

// 64 floats at the same place of the next row, which mostly follows in memory: its first pass would
// otherwise wait for L2.
inline void fetch(const float* x) {
#pragma GCC unroll 4
  for (size_t i = 0; i < 64; i += 16)
    _mm_prefetch(reinterpret_cast<const char*>(x + i), _MM_HINT_T0);
}

template <typename Divide>
inline void quantize(const float* x, size_t k, const Quantization& by, uint8_t* dst) {
  const Divide divide(by.scale);
  const Packer packer(static_cast<int32_t>(by.zero_point));
  for_each_64(x, k, [&](size_t at, __mmask64 mask, __m512 a, __m512 b, __m512 c, __m512 d) {
    fetch(x + at + k);
    _mm512_mask_storeu_epi8(dst + at, mask,
                            packer.pack<false>(divide(a), divide(b), divide(c), divide(d)));
  });
}

}  // namespace

float quantize_row_u8_avx512(const float* x, size_t k, size_t k_padded, uint8_t* dst,
                             int32_t* zero_point) {
  const Quantization by = range_of(x, k);
  *zero_point = static_cast<int32_t>(by.zero_point);
  const size_t valid = by.scale == by.scale ? k : 0;
  if (is_moderate(by.scale))
    quantize<ReciprocalDivider>(x, valid, by, dst);
  else
    quantize<Divider>(x, valid, by, dst);
  for (size_t p = valid; p < k_padded; ++p) dst[p] = 0;
  return by.scale;
}

}  // namespace lepton
