// Float32 micro-ops, sixteen lanes at a time: those that networks spend time in; the others are
// those of AVX2. As there, tiles are in L1 and arithmetic is bound by loads and stores, the
// transcendental functions by their polynomials, and arithmetic and quantisation give the bits of
// the scalar definition. Quotients of Quantize come from multiplications (Markstein, IBM J. Res.
// Dev. 34(1), 1990): a division of sixteen lanes takes longer than all the rest.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx512.h"
#include "ops/elementwise.h"

namespace lepton {
namespace {

// One operand as vectors.
struct Vectors {
  const float* data;
  __m512 load(size_t i) const { return _mm512_loadu_ps(data + i); }
  __m512 tail(size_t i, __mmask16 lanes) const { return _mm512_maskz_loadu_ps(lanes, data + i); }
};
struct Splat {
  __m512 value;
  explicit Splat(const float* x) : value(set16(*x)) {}
  __m512 load(size_t) const { return value; }
  __m512 tail(size_t, __mmask16) const { return value; }
};
// Either, decided per load: for operands that are rarely anything but one of the two.
struct Either {
  const float* data;
  bool splat;
  __m512 value;
  Either(const MicroArgs& x, int i)
      : data(static_cast<const float*>(x.in[i])),
        splat((x.splat >> i & 1) != 0),
        value(splat ? set16(*data) : _mm512_setzero_ps()) {}
  __m512 load(size_t i) const { return splat ? value : _mm512_loadu_ps(data + i); }
  __m512 tail(size_t i, __mmask16 lanes) const {
    return splat ? value : _mm512_maskz_loadu_ps(lanes, data + i);
  }
};

inline const float* in(const MicroArgs& x, int i) { return static_cast<const float*>(x.in[i]); }

template <typename F, typename... Operands>
inline void loop(const MicroArgs& x, const F& f, const Operands&... operands) {
  float* out = static_cast<float*>(x.out);
  size_t i = 0;
  for (; i + 16 <= x.n; i += 16) _mm512_storeu_ps(out + i, f(operands.load(i)...));
  if (i == x.n) return;
  const __mmask16 lanes = first_lanes(x.n - i);
  _mm512_mask_storeu_ps(out + i, lanes, f(operands.tail(i, lanes)...));
}

template <typename F>
inline void map1(const MicroArgs& x, const F& f) {
  if (x.splat & 1) return loop(x, f, Splat(in(x, 0)));
  loop(x, f, Vectors{in(x, 0)});
}
template <typename F>
inline void map2(const MicroArgs& x, const F& f) {
  switch (x.splat & 3) {
    case 0: return loop(x, f, Vectors{in(x, 0)}, Vectors{in(x, 1)});
    case 1: return loop(x, f, Splat(in(x, 0)), Vectors{in(x, 1)});
    case 2: return loop(x, f, Vectors{in(x, 0)}, Splat(in(x, 1)));
    default: return loop(x, f, Splat(in(x, 0)), Splat(in(x, 1)));
  }
}
// The usual case is one tensor and parameters.
template <typename F>
inline void map3(const MicroArgs& x, const F& f) {
  if ((x.splat & 7) == 6) return loop(x, f, Vectors{in(x, 0)}, Splat(in(x, 1)), Splat(in(x, 2)));
  loop(x, f, Either(x, 0), Either(x, 1), Either(x, 2));
}

inline __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
inline __m512 zero() { return _mm512_setzero_ps(); }
inline __mmask16 is_nan(__m512 x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
// minps and maxps return their second operand when either is NaN.
inline __m512 clip(__m512 x, __m512 lo, __m512 hi) {
  return _mm512_min_ps(hi, _mm512_max_ps(lo, x));
}

struct Quantization {
  __m512 zero_point, lo, hi;
  __m512 operator()(__m512 quotient) const {
    const __m512 q = add(_mm512_roundscale_ps(quotient, 8), zero_point);
    return _mm512_min_ps(_mm512_max_ps(q, lo), hi);
  }
};

// Scales that are neither so large nor so small that a quotient overflows, once x is bounded, or
// that a remainder loses bits that matter: those too small to be normal belong to quotients that
// round to 0. A bounded x leaves the range of any integer as the x itself does.
inline bool is_moderate(float scale) { return scale > 0x1p-40f && scale < 0x1p40f; }

void quantize(const MicroArgs& x) {
  const bool usual = (x.splat & 31) == 30;
  if (usual && is_moderate(*in(x, 1))) {
    const Quantization q = {set16(*in(x, 2)), set16(*in(x, 3)), set16(*in(x, 4))};
    const __m512 scale = set16(*in(x, 1)), reciprocal = set16(1.0f / *in(x, 1));
    const __m512 bound = set16(0x1p80f), other_bound = set16(-0x1p80f);
    return map1(x, [&](__m512 a) {
      a = clip(a, other_bound, bound);
      __m512 quotient = mul(a, reciprocal);
      quotient = fma(_mm512_fnmadd_ps(quotient, scale, a), reciprocal, quotient);
      return q(fma(_mm512_fnmadd_ps(quotient, scale, a), reciprocal, quotient));
    });
  }
  const auto f = [](__m512 a, __m512 scale, __m512 zero_point, __m512 lo, __m512 hi) {
    return Quantization{zero_point, lo, hi}(_mm512_div_ps(a, scale));
  };
  loop(x, f, Either(x, 0), Either(x, 1), Either(x, 2), Either(x, 3), Either(x, 4));
}

#define OP1(name, expr)             \
  {MicroOp::k##name, Compute::kF32, \
   [](const MicroArgs& x) { map1(x, [](__m512 a) { return expr; }); }}
#define OP2(name, expr)             \
  {MicroOp::k##name, Compute::kF32, \
   [](const MicroArgs& x) { map2(x, [](__m512 a, __m512 b) { return expr; }); }}
#define OP3(name, expr)             \
  {MicroOp::k##name, Compute::kF32, \
   [](const MicroArgs& x) { map3(x, [](__m512 a, __m512 b, __m512 c) { return expr; }); }}

// clang-format off
const MicroKernel kList[] = {
    OP2(Add, add(a, b)),
    OP2(Sub, sub(a, b)),
    OP2(Mul, mul(a, b)),
    OP2(Div, _mm512_div_ps(a, b)),
    OP2(Min, _mm512_mask_mov_ps(_mm512_min_ps(a, b), is_nan(a), a)),
    OP2(Max, _mm512_mask_mov_ps(_mm512_max_ps(a, b), is_nan(a), a)),
    OP1(Neg, _mm512_xor_ps(a, set16(-0.0f))),
    OP1(Abs, _mm512_abs_ps(a)),
    OP1(Exp, exp_of_any(a)),
    OP1(Tanh, tanh_f32x16(a)),
    OP1(Sigmoid, sigmoid_f32x16(a)),
    OP1(Erf, erf_f32x16(a)),
    OP1(Relu, _mm512_max_ps(zero(), a)),
    OP3(Clip, clip(a, b, c)),
    OP2(LeakyRelu, _mm512_mask_mul_ps(a, _mm512_cmp_ps_mask(a, zero(), _CMP_LT_OQ), b, a)),
    OP1(HardSwish, mul(a, clip(add(mul(a, set16(1.0f / 6)), set16(0.5f)), zero(), set16(1.0f)))),
    OP1(Silu, mul(a, sigmoid_f32x16(a))),
    OP1(Gelu, gelu_f32x16(a)),
    OP1(GeluTanh, gelu_tanh_f32x16(a)),
    OP3(Where, _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, zero(), _CMP_NEQ_UQ), c, b)),
    OP3(Dequantize, mul(sub(a, c), b)),
    {MicroOp::kQuantize, Compute::kF32, quantize},
};
// clang-format on

}  // namespace

MicroKernels elementwise_avx512() { return {kList, sizeof kList / sizeof kList[0]}; }

}  // namespace lepton
