// Eight-lane float32 mathematics for the AVX2 kernels. Internal linkage throughout, so that nothing
// compiled with AVX2 can stand in for a portable function.
//
// Method: argument reduction to a short interval, then a polynomial. The coefficients are minimax
// fits (Remez exchange in 50-digit arithmetic, relative error weight) made for this file, rounded
// to float32; the fit errors stand at each one. Special values come out as C's library gives them.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lepton {
namespace {

inline __m256 set1(float x) { return _mm256_set1_ps(x); }
inline __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256 and_(__m256 a, __m256 b) { return _mm256_and_ps(a, b); }
// mask ? a : b
inline __m256 select(__m256 mask, __m256 a, __m256 b) { return _mm256_blendv_ps(b, a, mask); }
inline __m256 abs_f32x8(__m256 x) { return _mm256_andnot_ps(set1(-0.0f), x); }
inline __m256 negate(__m256 x) { return _mm256_xor_ps(x, set1(-0.0f)); }
inline __m256 with_sign_of(__m256 magnitude, __m256 x) {
  return _mm256_or_ps(magnitude, and_(set1(-0.0f), x));
}

// Lane masks of the first n lanes, n < 8.
inline __m256i tail_mask(size_t n) {
  alignas(32) static const int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - n));
}
inline __m256 load_tail(const float* x, size_t n) { return _mm256_maskload_ps(x, tail_mask(n)); }
inline void store_tail(float* y, __m256 v, size_t n) { _mm256_maskstore_ps(y, tail_mask(n), v); }

// e^r − 1 = r + r² q(r) on |r| <= ln(2) / 2, error 3e-9; x = n ln 2 + r.
inline __m256 exp_fraction(__m256 n, __m256 x) {
  __m256 r = _mm256_fnmadd_ps(n, set1(0.693147182f), x);
  r = _mm256_fnmadd_ps(n, set1(-1.904654e-9f), r);
  __m256 q = set1(1.381421811e-03f);
  q = fma(q, r, set1(8.368899114e-03f));
  q = fma(q, r, set1(4.166840762e-02f));
  q = fma(q, r, set1(1.666651964e-01f));
  q = fma(q, r, set1(4.999999404e-01f));
  return fma(_mm256_mul_ps(r, r), q, r);
}
struct ExpParts {
  __m256 n, p;
};
inline ExpParts exp_parts(__m256 x) {
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, set1(1.442695041f)), 8);
  return {n, exp_fraction(n, x)};
}
inline __m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

// Denormal results and overflow included: 2^n is applied in two halves. What rounds to zero is
// masked out rather than computed, since some processors take 150 cycles to underflow, and masked
// scores of attention all do.
inline __m256 exp_f32x8(__m256 x) {
  const __m256 keep = _mm256_cmp_ps(x, set1(-104.0f), _CMP_NLT_UQ);
  x = _mm256_min_ps(set1(89.0f), _mm256_and_ps(keep, x));
  const ExpParts e = exp_parts(x);
  const __m256i n = _mm256_cvtps_epi32(e.n);
  const __m256i half = _mm256_srai_epi32(n, 1);
  const __m256 y = _mm256_add_ps(e.p, set1(1.0f));
  const __m256 halfway = _mm256_mul_ps(y, power_of_two(half));
  return _mm256_and_ps(keep, _mm256_mul_ps(halfway, power_of_two(_mm256_sub_epi32(n, half))));
}

// 2^x for x <= 127 (or NaN): a polynomial of degree 6 on |f| <= 1/2, error 2e-9, whose exponent is
// raised by the rest; below the normal numbers 0, whatever the polynomial made of x.
inline __m256 exp2_f32x8(__m256 x) {
  const __m256 keep = _mm256_cmp_ps(x, set1(-126.0f), _CMP_NLT_UQ);
  const __m256 n = _mm256_round_ps(x, 8), f = _mm256_sub_ps(x, n);
  __m256 p = fma(set1(1.534581243e-04f), f, set1(1.339993090e-03f));
  p = fma(p, f, set1(9.618489072e-03f));
  p = fma(p, f, set1(5.550328642e-02f));
  p = fma(p, f, set1(2.402264625e-01f));
  p = fma(p, f, set1(6.931471825e-01f));
  p = fma(p, f, set1(1.0f));
  const __m256i raise = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return and_(keep, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), raise)));
}

// e^x − 1 for x <= 0; anything for x > 0.
inline __m256 expm1_of_negative(__m256 x) {
  x = _mm256_min_ps(set1(1.0f), _mm256_max_ps(set1(-25.0f), x));
  const ExpParts e = exp_parts(x);
  const __m256 scale = power_of_two(_mm256_cvtps_epi32(e.n));
  return fma(e.p, scale, _mm256_sub_ps(scale, set1(1.0f)));
}

// x = 2^e m, m in [1/√2, √2); log m = f − f²/2 + f³ q(f), f = m − 1, error 8e-10.
inline __m256 log_f32x8(__m256 x) {
  const __m256 tiny = _mm256_cmp_ps(x, set1(1.17549435e-38f), _CMP_LT_OQ);
  const __m256 scaled = select(tiny, _mm256_mul_ps(x, set1(8388608.0f)), x);
  const __m256i bits = _mm256_castps_si256(scaled);
  const __m256i e = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f3504f3)), 23);
  const __m256 m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(e, 23)));
  const __m256 exponent = _mm256_sub_ps(_mm256_cvtepi32_ps(e), and_(tiny, set1(23.0f)));
  const __m256 f = _mm256_sub_ps(m, set1(1.0f)), z = _mm256_mul_ps(f, f);
  __m256 q = set1(6.927618384e-02f);
  q = fma(q, f, set1(-1.180831566e-01f));
  q = fma(q, f, set1(1.187731177e-01f));
  q = fma(q, f, set1(-1.238168180e-01f));
  q = fma(q, f, set1(1.421779096e-01f));
  q = fma(q, f, set1(-1.666936725e-01f));
  q = fma(q, f, set1(2.000226974e-01f));
  q = fma(q, f, set1(-2.499998510e-01f));
  q = fma(q, f, set1(3.333331048e-01f));
  // ln 2 = 0.693359375 − 2.12194440e-4: the first part times an exponent is exact.
  __m256 y = _mm256_mul_ps(_mm256_mul_ps(f, z), q);
  y = fma(exponent, set1(-2.12194440e-4f), y);
  y = fma(z, set1(-0.5f), y);
  y = _mm256_add_ps(f, y);
  y = fma(exponent, set1(0.693359375f), y);
  const __m256 infinity = set1(__builtin_inff());
  y = select(_mm256_cmp_ps(x, infinity, _CMP_EQ_OQ), infinity, y);
  y = select(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_EQ_OQ), negate(infinity), y);
  return select(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NGE_UQ), set1(__builtin_nanf("")), y);
}

// log(1 + u) for 0 <= u <= 1: what 1 + u lost in rounding is put back.
inline __m256 log1p_of_unit(__m256 u) {
  const __m256 w = _mm256_add_ps(u, set1(1.0f));
  const __m256 lost = _mm256_sub_ps(u, _mm256_sub_ps(w, set1(1.0f)));
  return _mm256_add_ps(log_f32x8(w), _mm256_div_ps(lost, w));
}

inline __m256 sigmoid_f32x8(__m256 x) {
  const __m256 one = set1(1.0f);
  return _mm256_div_ps(one, _mm256_add_ps(one, exp_f32x8(negate(x))));
}

// |x| < 0.625: x + x³ p(x²), error 5e-9; else 1 − 2 / (e^2|x| + 1).
inline __m256 tanh_f32x8(__m256 x) {
  const __m256 a = abs_f32x8(x), z = _mm256_mul_ps(x, x), one = set1(1.0f);
  __m256 p = set1(-5.660786293e-03f);
  p = fma(p, z, set1(2.060200460e-02f));
  p = fma(p, z, set1(-5.372922868e-02f));
  p = fma(p, z, set1(1.333132833e-01f));
  p = fma(p, z, set1(-3.333327770e-01f));
  const __m256 small = fma(_mm256_mul_ps(x, z), p, x);
  const __m256 e = exp_f32x8(_mm256_add_ps(a, a));
  const __m256 large = _mm256_sub_ps(one, _mm256_div_ps(set1(2.0f), _mm256_add_ps(e, one)));
  return select(_mm256_cmp_ps(a, set1(0.625f), _CMP_LT_OQ), small, with_sign_of(large, x));
}

// erfc(a) = exp(−t), t = a p(a), 0 <= a <= kErfEnd, error 2e-9 relative in erf, 2e-9 · (1 + 0.002 /
// erfc) in erfc; even and odd powers of p run as two chains.
constexpr float kErfEnd = 4.2f;
inline ExpParts erfc_parts(__m256 a) {
  const __m256 z = _mm256_mul_ps(a, a);
  __m256 even = set1(-1.128530869e-07f), odd = set1(2.802043127e-06f);
  even = fma(even, z, set1(-3.081433169e-05f));
  odd = fma(odd, z, set1(1.974569168e-04f));
  even = fma(even, z, set1(-7.966544363e-04f));
  odd = fma(odd, z, set1(1.862445497e-03f));
  even = fma(even, z, set1(-2.952394134e-04f));
  odd = fma(odd, z, set1(-1.910199411e-02f));
  even = fma(even, z, set1(1.027684361e-01f));
  odd = fma(odd, z, set1(6.366200447e-01f));
  even = fma(even, z, set1(1.128379107e+00f));
  return exp_parts(_mm256_mul_ps(negate(a), fma(odd, a, even)));
}

// 1 − erfc, without cancellation for small x.
inline __m256 erf_f32x8(__m256 x) {
  const ExpParts e = erfc_parts(_mm256_min_ps(set1(kErfEnd), abs_f32x8(x)));
  const __m256 scale = power_of_two(_mm256_cvtps_epi32(e.n));
  return with_sign_of(_mm256_fnmadd_ps(e.p, scale, _mm256_sub_ps(set1(1.0f), scale)), x);
}

// x Φ(x), where Φ(−a) = erfc(a / √2) / 2 keeps its relative accuracy until it vanishes.
inline __m256 gelu_f32x8(__m256 x) {
  const __m256 a = _mm256_mul_ps(abs_f32x8(x), set1(0.707106781f)), end = set1(kErfEnd);
  const ExpParts e = erfc_parts(_mm256_min_ps(end, a));
  const __m256 half_scale = _mm256_mul_ps(power_of_two(_mm256_cvtps_epi32(e.n)), set1(0.5f));
  const __m256 beyond = _mm256_cmp_ps(a, end, _CMP_GT_OQ);
  const __m256 tail = _mm256_andnot_ps(beyond, fma(e.p, half_scale, half_scale));
  return _mm256_mul_ps(x, select(x, tail, _mm256_sub_ps(set1(1.0f), tail)));
}

// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 = x sigmoid(2 √(2/π) (x + 0.044715 x³)).
inline __m256 gelu_tanh_f32x8(__m256 x) {
  const __m256 z = _mm256_mul_ps(x, x);
  const __m256 inner = _mm256_mul_ps(x, fma(z, set1(0.0713548162726f), set1(1.5957691216057f)));
  return _mm256_mul_ps(x, sigmoid_f32x8(inner));
}

// tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2), e = e^x.
inline __m256 mish_f32x8(__m256 x) {
  const __m256 e = exp_f32x8(x), two = set1(2.0f);
  const __m256 n = _mm256_mul_ps(e, _mm256_add_ps(e, two));
  const __m256 y = _mm256_div_ps(_mm256_mul_ps(x, n), _mm256_add_ps(n, two));
  return select(_mm256_cmp_ps(x, set1(20.0f), _CMP_GT_OQ), x, y);
}

inline __m256 softplus_f32x8(__m256 x) {
  const __m256 u = exp_f32x8(negate(abs_f32x8(x)));
  return _mm256_add_ps(_mm256_max_ps(_mm256_setzero_ps(), x), log1p_of_unit(u));
}

// Sine or cosine of |x| <= kTurnLimit. x = n π/2 + r in three parts of π/2, the first step exact;
// sin r = r + r³ s(r²), error 4e-9, cos r = 1 − r²/2 + r⁴ c(r²), error 1e-10; n + shift (0 for the
// sine, 1 for the cosine) says which of the two, and the sign.
constexpr float kTurnLimit = 8192.0f;
inline __m256 sine_f32x8(__m256 x, int shift) {
  const __m256 turns = _mm256_round_ps(_mm256_mul_ps(x, set1(6.366197467e-01f)), 8);
  __m256 r = _mm256_fnmadd_ps(turns, set1(1.570796371e+00f), x);
  r = _mm256_fnmadd_ps(turns, set1(-4.371138829e-08f), r);
  r = _mm256_fnmadd_ps(turns, set1(-1.715124510e-15f), r);
  const __m256 z = _mm256_mul_ps(r, r);
  __m256 s = fma(set1(-1.951648010e-04f), z, set1(8.332172409e-03f));
  s = fma(s, z, set1(-1.666665524e-01f));
  s = fma(_mm256_mul_ps(r, z), s, r);
  __m256 c = fma(set1(2.443753328e-05f), z, set1(-1.388735953e-03f));
  c = fma(c, z, set1(4.166664556e-02f));
  c = fma(_mm256_mul_ps(z, z), c, fma(z, set1(-0.5f), set1(1.0f)));
  const __m256i n = _mm256_add_epi32(_mm256_cvtps_epi32(turns), _mm256_set1_epi32(shift));
  const __m256 odd = _mm256_castsi256_ps(_mm256_slli_epi32(n, 31));
  const __m256 sign = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(n, 1), 31));
  return _mm256_xor_ps(select(odd, c, s), sign);
}

inline float sum_lanes(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float max_lanes(__m256 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

}  // namespace
}  // namespace lepton
