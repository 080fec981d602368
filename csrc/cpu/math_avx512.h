// Sixteen-lane float32 mathematics for the AVX-512 kernels: the methods and coefficients of
// math_avx2.h; 2^n is applied by an instruction that underflows as it should. Internal linkage
// throughout.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lepton {
namespace {

inline __m512 set16(float x) { return _mm512_set1_ps(x); }
inline __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
inline __m512 sub(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }
inline __m512 mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }

// The first n of sixteen lanes.
inline __mmask16 first_lanes(size_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1);
}

// e^x for x <= 88 (or NaN); denormal results included. What rounds to zero is masked out: see
// exp_f32x8.
inline __m512 exp_f32x16(__m512 x) {
  const __mmask16 keep = _mm512_cmp_ps_mask(x, set16(-104.0f), _CMP_NLT_UQ);
  const __m512 n = _mm512_roundscale_ps(mul(x, set16(1.442695041f)), 8);
  __m512 r = _mm512_fnmadd_ps(n, set16(0.693147182f), x);
  r = _mm512_fnmadd_ps(n, set16(-1.904654e-9f), r);
  __m512 q = set16(1.381421811e-03f);
  q = fma(q, r, set16(8.368899114e-03f));
  q = fma(q, r, set16(4.166840762e-02f));
  q = fma(q, r, set16(1.666651964e-01f));
  q = fma(q, r, set16(4.999999404e-01f));
  const __m512 p = fma(mul(r, r), q, r);
  return _mm512_maskz_scalef_ps(keep, _mm512_add_ps(p, set16(1.0f)), n);
}

// |x| < 0.625: x + x³ p(x²); else 1 − 2 / (e^2|x| + 1).
inline __m512 tanh_f32x16(__m512 x) {
  const __m512 a = _mm512_abs_ps(x), z = mul(x, x), one = set16(1.0f);
  __m512 p = set16(-5.660786293e-03f);
  p = fma(p, z, set16(2.060200460e-02f));
  p = fma(p, z, set16(-5.372922868e-02f));
  p = fma(p, z, set16(1.333132833e-01f));
  p = fma(p, z, set16(-3.333327770e-01f));
  const __m512 small = fma(mul(x, z), p, x);
  const __m512 e = exp_f32x16(_mm512_min_ps(set16(88.0f), _mm512_add_ps(a, a)));
  const __m512 large = sub(one, _mm512_div_ps(set16(2.0f), _mm512_add_ps(e, one)));
  const __m512 sign = _mm512_and_ps(x, set16(-0.0f));
  const __mmask16 is_small = _mm512_cmp_ps_mask(a, set16(0.625f), _CMP_LT_OQ);
  return _mm512_mask_blend_ps(is_small, _mm512_or_ps(large, sign), small);
}

}  // namespace
}  // namespace lepton
