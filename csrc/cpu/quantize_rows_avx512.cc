// 64 floats at a time, the last ones through masked loads: a pass for the range, with four extremes
// side by side to hide the latency of their comparisons, and a pass for the integers, whose
// quotients come from multiplications and which saturating packs round off, clamp and narrow. The
// row is in L1 for the second pass; bound by arithmetic, ten instructions for sixteen floats.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

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

struct Divider {
  __m512 divisor_f32x16;
  __m512 operator()(__m512 v) const { return _mm512_div_ps(v, divisor_f32x16); }
};

// The same bits from the correctly rounded reciprocal and what it lacks, as in
// epilogue_s8_avx512.cc, of a divisor that is neither so large nor so small that a product
// overflows or loses bits: the quotients are at most 255, and remainders too small to be normal
// belong to those that round to 0.
struct ReciprocalDivider {
  explicit ReciprocalDivider(float divisor)
      : divisor_f32x16(_mm512_set1_ps(divisor)),
        reciprocal_f32x16(_mm512_set1_ps(1.f / divisor)),
        rest_f32x16(_mm512_set1_ps(static_cast<float>(1. / divisor - 1.f / divisor))) {}
  __m512 operator()(__m512 v) const {
    const __m512 q_f32x16 = _mm512_fmadd_ps(v, reciprocal_f32x16, _mm512_mul_ps(v, rest_f32x16));
    const __m512 off_f32x16 = _mm512_fnmadd_ps(q_f32x16, divisor_f32x16, v);
    return _mm512_fmadd_ps(off_f32x16, reciprocal_f32x16, q_f32x16);
  }
  __m512 divisor_f32x16, reciprocal_f32x16, rest_f32x16;
};

// 64 bytes from four vectors. The quotients fit int16 by far, so that packing with saturation is
// the clamp to [0, 255].
template <typename Divide>
class Quantizer {
 public:
  Quantizer(float zero_point, const Divide& divide)
      : divide_(divide),
        zero_point_i16x32_(_mm512_set1_epi16(static_cast<int16_t>(zero_point))),
        order_i32x16_(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)) {}
  __m512i operator()(__m512 a, __m512 b, __m512 c, __m512 d) const {
    const __m512i bytes_u8x64 = _mm512_packus_epi16(biased(a, b), biased(c, d));
    return _mm512_permutexvar_epi32(order_i32x16_, bytes_u8x64);  // packs work within 128 bits
  }

 private:
  __m512i biased(__m512 a, __m512 b) const {
    const __m512i q_i16x32 =
        _mm512_packs_epi32(_mm512_cvtps_epi32(divide_(a)), _mm512_cvtps_epi32(divide_(b)));
    return _mm512_add_epi16(q_i16x32, zero_point_i16x32_);
  }

  Divide divide_;
  __m512i zero_point_i16x32_, order_i32x16_;
};

// 64 floats at the same place of the next row, which mostly follows in memory: its first pass would
// otherwise wait for L2.
inline void fetch(const float* x) {
#pragma GCC unroll 4
  for (size_t i = 0; i < 64; i += 16)
    _mm_prefetch(reinterpret_cast<const char*>(x + i), _MM_HINT_T0);
}

template <typename Divide>
inline void quantize(const float* x, size_t k, float zero_point, const Divide& divide,
                     uint8_t* dst) {
  const Quantizer<Divide> quantizer(zero_point, divide);
  size_t p = 0;
  for (; p + 64 <= k; p += 64) {
    const float* const from = x + p;
    fetch(from + k);
    _mm512_storeu_si512(dst + p, quantizer(_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16),
                                           _mm512_loadu_ps(from + 32), _mm512_loadu_ps(from + 48)));
  }
  if (p == k) return;
  const auto some = [&](size_t at) {
    return at < k ? _mm512_maskz_loadu_ps(mask_of(k - at), x + at) : _mm512_setzero_ps();
  };
  _mm512_mask_storeu_epi8(dst + p, (__mmask64{1} << (k - p)) - 1,
                          quantizer(some(p), some(p + 16), some(p + 32), some(p + 48)));
}

}  // namespace

float quantize_row_u8_avx512(const float* x, size_t k, size_t k_padded, uint8_t* dst,
                             int32_t* zero_point) {
  const Quantization by = range_of(x, k);
  *zero_point = static_cast<int32_t>(by.zero_point);
  const size_t valid = by.scale == by.scale ? k : 0;
  if (by.scale > 0x1p-40f && by.scale < 0x1p40f)
    quantize(x, valid, by.zero_point, ReciprocalDivider(by.scale), dst);
  else
    quantize(x, valid, by.zero_point, Divider{_mm512_set1_ps(by.scale)}, dst);
  for (size_t p = valid; p < k_padded; ++p) dst[p] = 0;
  return by.scale;
}

}  // namespace lepton
