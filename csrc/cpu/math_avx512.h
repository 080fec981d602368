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

// e^r − 1 = r + r² q(r) on |r| <= ln(2) / 2; x = n ln 2 + r.
inline __m512 exp_fraction(__m512 n, __m512 x) {
  __m512 r = _mm512_fnmadd_ps(n, set16(0.693147182f), x);
  r = _mm512_fnmadd_ps(n, set16(-1.904654e-9f), r);
  __m512 q = set16(1.381421811e-03f);
  q = fma(q, r, set16(8.368899114e-03f));
  q = fma(q, r, set16(4.166840762e-02f));
  q = fma(q, r, set16(1.666651964e-01f));
  q = fma(q, r, set16(4.999999404e-01f));
  return fma(mul(r, r), q, r);
}
struct ExpParts16 {
  __m512 n, p;
};
inline ExpParts16 exp_parts(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(mul(x, set16(1.442695041f)), 8);
  return {n, exp_fraction(n, x)};
}

// e^x for x <= 88 (or NaN); denormal results included. What rounds to zero is masked out: see
// exp_f32x8.
inline __m512 exp_f32x16(__m512 x) {
  const __mmask16 keep = _mm512_cmp_ps_mask(x, set16(-104.0f), _CMP_NLT_UQ);
  const ExpParts16 e = exp_parts(x);
  return _mm512_maskz_scalef_ps(keep, _mm512_add_ps(e.p, set16(1.0f)), e.n);
}

// 2^x for x <= 127 (or NaN): a polynomial of degree 6 on |f| <= 1/2, error 2e-9; below the normal
// numbers 0.
inline __m512 exp2_f32x16(__m512 x) {
  const __mmask16 keep = _mm512_cmp_ps_mask(x, set16(-126.0f), _CMP_NLT_UQ);
  const __m512 n = _mm512_roundscale_ps(x, 8), f = sub(x, n);
  __m512 p = fma(set16(1.534581243e-04f), f, set16(1.339993090e-03f));
  p = fma(p, f, set16(9.618489072e-03f));
  p = fma(p, f, set16(5.550328642e-02f));
  p = fma(p, f, set16(2.402264625e-01f));
  p = fma(p, f, set16(6.931471825e-01f));
  p = fma(p, f, set16(1.0f));
  return _mm512_maskz_scalef_ps(keep, p, n);
}
// For any x.
inline __m512 exp_of_any(__m512 x) { return exp_f32x16(_mm512_min_ps(set16(89.0f), x)); }

inline __m512 sigmoid_f32x16(__m512 x) {
  const __m512 one = set16(1.0f);
  return _mm512_div_ps(one, _mm512_add_ps(one, exp_of_any(sub(_mm512_setzero_ps(), x))));
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

// erfc(a) = exp(−t), 0 <= a <= 4.2: see math_avx2.h.
constexpr float kErfEnd16 = 4.2f;
inline ExpParts16 erfc_parts(__m512 a) {
  const __m512 z = mul(a, a);
  __m512 even = set16(-1.128530869e-07f), odd = set16(2.802043127e-06f);
  even = fma(even, z, set16(-3.081433169e-05f));
  odd = fma(odd, z, set16(1.974569168e-04f));
  even = fma(even, z, set16(-7.966544363e-04f));
  odd = fma(odd, z, set16(1.862445497e-03f));
  even = fma(even, z, set16(-2.952394134e-04f));
  odd = fma(odd, z, set16(-1.910199411e-02f));
  even = fma(even, z, set16(1.027684361e-01f));
  odd = fma(odd, z, set16(6.366200447e-01f));
  even = fma(even, z, set16(1.128379107e+00f));
  return exp_parts(mul(sub(_mm512_setzero_ps(), a), fma(odd, a, even)));
}

inline __m512 erf_f32x16(__m512 x) {
  const ExpParts16 e = erfc_parts(_mm512_min_ps(set16(kErfEnd16), _mm512_abs_ps(x)));
  const __m512 scale = _mm512_scalef_ps(set16(1.0f), e.n);
  const __m512 y = _mm512_fnmadd_ps(e.p, scale, sub(set16(1.0f), scale));
  return _mm512_or_ps(y, _mm512_and_ps(x, set16(-0.0f)));
}

// x Φ(x), where Φ(−a) = erfc(a / √2) / 2 keeps its relative accuracy until it vanishes.
inline __m512 gelu_f32x16(__m512 x) {
  const __m512 a = mul(_mm512_abs_ps(x), set16(0.707106781f)), end = set16(kErfEnd16);
  const ExpParts16 e = erfc_parts(_mm512_min_ps(end, a));
  const __m512 half_scale = _mm512_scalef_ps(set16(0.5f), e.n);
  const __mmask16 within = _mm512_cmp_ps_mask(a, end, _CMP_NGT_UQ);
  const __m512 tail = _mm512_maskz_fmadd_ps(within, e.p, half_scale, half_scale);
  const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
  return mul(x, _mm512_mask_blend_ps(negative, sub(set16(1.0f), tail), tail));
}

// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 = x sigmoid(2 √(2/π) (x + 0.044715 x³)).
inline __m512 gelu_tanh_f32x16(__m512 x) {
  const __m512 z = mul(x, x);
  const __m512 inner = mul(x, fma(z, set16(0.0713548162726f), set16(1.5957691216057f)));
  return mul(x, sigmoid_f32x16(inner));
}

}  // namespace
}  // namespace lepton
