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

// x Φ(x) for a distribution that is symmetric about 0: Φ(−a), which keeps its relative accuracy
// until it vanishes, by sixteen polynomials of degree 5 in a − 0.4 i, i = rint(a / 0.4); the last
// one is 0. Coefficients, by power and then by i, are minimax in relative error (3e-8 and below),
// made for this file. Coefficients come from registers by one permutation each: twenty operations
// in all.
struct TailTable {
  alignas(64) float coefficient[6][16];
};
// Normal distribution: erfc(a / √2) / 2.
constexpr TailTable kNormalTail = {{
    {5.000000000e-01f, 3.445782661e-01f, 2.118554115e-01f, 1.150696725e-01f, 5.479928851e-02f,
     2.275012992e-02f, 8.197534829e-03f, 2.555130282e-03f, 6.871382357e-04f, 1.591088367e-04f,
     3.167135583e-05f, 5.412583050e-06f, 7.933383586e-07f, 9.964632852e-08f, 1.071792166e-08f,
     0.0f},
    {-3.989422619e-01f, -3.682700992e-01f, -2.896915078e-01f, -1.941860467e-01f, -1.109208614e-01f,
     -5.399099737e-02f, -2.239454538e-02f, -7.915451191e-03f, -2.384081949e-03f, -6.118963356e-04f,
     -1.338272850e-04f, -2.494134606e-05f, -3.960969025e-06f, -5.360270734e-07f, -6.181192447e-08f,
     0.0f},
    {5.739773545e-09f, 7.365159690e-02f, 1.158740595e-01f, 1.165108606e-01f, 8.873751760e-02f,
     5.399212241e-02f, 2.687403560e-02f, 1.108168624e-02f, 3.814394353e-03f, 1.101294649e-03f,
     2.675964206e-04f, 5.485067959e-05f, 9.500931810e-06f, 1.392543027e-06f, 1.728840573e-07f,
     0.0f},
    {6.648865342e-02f, 5.155374110e-02f, 1.737837680e-02f, -1.424018014e-02f, -2.883667126e-02f,
     -2.699258365e-02f, -1.776497811e-02f, -9.023733437e-03f, -3.672171850e-03f, -1.220285660e-03f,
     -3.348661412e-04f, -7.643386925e-05f, -1.458331553e-05f, -2.334160172e-06f, -3.142437208e-07f,
     0.0f},
    {-1.874452806e-07f, -1.726819761e-02f, -2.261663415e-02f, -1.509474963e-02f, -3.312059445e-03f,
     4.419945646e-03f, 6.139507983e-03f, 4.465930164e-03f, 2.311998745e-03f, 9.235110483e-04f,
     2.946634777e-04f, 7.650457701e-05f, 1.634549881e-05f, 2.895112857e-06f, 4.273238972e-07f,
     0.0f},
    {-9.888994507e-03f, -6.232639309e-03f, 1.082268776e-03f, 5.733713042e-03f, 5.294620991e-03f,
     2.196083078e-03f, -3.175482561e-04f, -1.140329405e-03f, -9.073953261e-04f, -4.649528419e-04f,
     -1.769076189e-04f, -5.264397623e-05f, -1.257026997e-05f, -2.444658548e-06f, -3.910042778e-07f,
     0.0f},
}};
// Its approximation by tanh: 1 / (1 + exp(2 √(2/π) (a + 0.044715 a³))).
constexpr TailTable kTanhTail = {{
    {5.000000000e-01f, 3.445970714e-01f, 2.119603902e-01f, 1.152476966e-01f, 5.491439626e-02f,
     2.270114981e-02f, 8.032018319e-03f, 2.388890367e-03f, 5.842393148e-04f, 1.146058348e-04f,
     1.756159509e-05f, 2.045927431e-06f, 1.763258979e-07f, 1.093816948e-08f, 4.751876670e-10f,
     0.0f},
    {-3.989422619e-01f, -3.681397438e-01f, -2.894301116e-01f, -1.941448599e-01f, -1.112593412e-01f,
     -5.440023169e-02f, -2.253833786e-02f, -7.802627049e-03f, -2.211675746e-03f, -5.007677246e-04f,
     -8.816727495e-05f, -1.174204408e-05f, -1.150611638e-06f, -8.070330892e-08f, -3.941660331e-09f,
     0.0f},
    {6.010252296e-09f, 7.391228527e-02f, 1.158491597e-01f, 1.160327122e-01f, 8.838494122e-02f,
     5.416993797e-02f, 2.727309614e-02f, 1.128365658e-02f, 3.783707973e-03f, 1.005518017e-03f,
     2.062330605e-04f, 3.175471284e-05f, 3.570687113e-06f, 2.853377055e-07f, 1.577346431e-08f,
     0.0f},
    {6.681767106e-02f, 5.156670883e-02f, 1.695040055e-02f, -1.443771645e-02f, -2.846235037e-02f,
     -2.660403214e-02f, -1.779569872e-02f, -9.256072342e-03f, -3.799144644e-03f, -1.215826022e-03f,
     -2.965572639e-04f, -5.372382657e-05f, -7.042693596e-06f, -6.512055961e-07f, -4.142078680e-08f,
     0.0f},
    {-1.962768437e-07f, -1.759566925e-02f, -2.272400819e-02f, -1.474660728e-02f, -3.076640191e-03f,
     4.226919264e-03f, 5.900847726e-03f, 4.458506592e-03f, 2.410853049e-03f, 9.749718593e-04f,
     2.932384086e-04f, 6.433702947e-05f, 1.006629918e-05f, 1.096939400e-06f, 8.128979090e-08f,
     0.0f},
    {-1.011301577e-02f, -6.280000787e-03f, 1.327408827e-03f, 5.853147246e-03f, 5.084516946e-03f,
     2.051532501e-03f, -2.289578260e-04f, -1.037961920e-03f, -9.064425249e-04f, -4.978846991e-04f,
     -1.895735477e-04f, -5.042527118e-05f, -9.261128980e-06f, -1.154225970e-06f, -9.567312276e-08f,
     0.0f},
}};
inline __m512 times_cumulative(const TailTable& table, __m512 x) {
  const __m512 a = _mm512_min_ps(set16(6.0f), _mm512_abs_ps(x));   // NaN: the second operand
  const __m512 shifted = fma(a, set16(2.5f), set16(12582912.0f));  // i in the last bits
  const __m512i i = _mm512_castps_si512(shifted);
  const __m512 f = _mm512_fnmadd_ps(sub(shifted, set16(12582912.0f)), set16(0.4f), a);
  const auto coefficient = [&](size_t power) {
    return _mm512_permutexvar_ps(i, _mm512_load_ps(table.coefficient[power]));
  };
  __m512 tail = fma(coefficient(5), f, coefficient(4));
  tail = fma(tail, f, coefficient(3));
  tail = fma(tail, f, coefficient(2));
  tail = fma(tail, f, coefficient(1));
  tail = fma(tail, f, coefficient(0));
  const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
  return mul(x, _mm512_mask_sub_ps(tail, static_cast<__mmask16>(~negative), set16(1.0f), tail));
}

inline __m512 gelu_f32x16(__m512 x) { return times_cumulative(kNormalTail, x); }
inline __m512 gelu_tanh_f32x16(__m512 x) { return times_cumulative(kTanhTail, x); }

}  // namespace
}  // namespace lepton
