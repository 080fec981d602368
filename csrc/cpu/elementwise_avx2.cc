// Float32 micro-ops, eight lanes at a time; the last lanes through masked loads and stores. Tiles
// are in L1, so the arithmetic is bound by loads and stores (three per vector of a binary op), the
// transcendental functions by their polynomials. What is missing here runs the scalar definition.
// Arithmetic, comparisons and quantisation use the scalar file's operations in its order, without
// FMA: their results are bit-identical.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx2.h"
#include "ops/elementwise.h"

namespace lepton {
namespace {

// One operand as vectors.
struct Vectors {
  const float* data;
  __m256 load(size_t i) const { return _mm256_loadu_ps(data + i); }
  __m256 tail(size_t i, size_t n) const { return load_tail(data + i, n); }
};
struct Splat {
  __m256 value;
  explicit Splat(const float* x) : value(_mm256_broadcast_ss(x)) {}
  __m256 load(size_t) const { return value; }
  __m256 tail(size_t, size_t) const { return value; }
};
// Either, decided per load: for operands that are rarely anything but one of the two.
struct Either {
  const float* data;
  bool splat;
  __m256 value;
  Either(const MicroArgs& x, int i)
      : data(static_cast<const float*>(x.in[i])),
        splat((x.splat >> i & 1) != 0),
        value(splat ? _mm256_broadcast_ss(data) : _mm256_setzero_ps()) {}
  __m256 load(size_t i) const { return splat ? value : _mm256_loadu_ps(data + i); }
  __m256 tail(size_t i, size_t n) const { return splat ? value : load_tail(data + i, n); }
};

inline const float* in(const MicroArgs& x, int i) { return static_cast<const float*>(x.in[i]); }

template <typename F, typename... Operands>
inline void loop(const MicroArgs& x, const F& f, const Operands&... operands) {
  float* out = static_cast<float*>(x.out);
  size_t i = 0;
  for (; i + 8 <= x.n; i += 8) _mm256_storeu_ps(out + i, f(operands.load(i)...));
  const size_t rest = x.n - i;
  if (rest != 0) store_tail(out + i, f(operands.tail(i, rest)...), rest);
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
template <typename F>
inline void map5(const MicroArgs& x, const F& f) {
  if ((x.splat & 31) == 30)
    return loop(x, f, Vectors{in(x, 0)}, Splat(in(x, 1)), Splat(in(x, 2)), Splat(in(x, 3)),
                Splat(in(x, 4)));
  loop(x, f, Either(x, 0), Either(x, 1), Either(x, 2), Either(x, 3), Either(x, 4));
}

inline __m256 zero() { return _mm256_setzero_ps(); }
inline __m256 truth(__m256 mask) { return and_(mask, set1(1.0f)); }
inline __m256 is_true(__m256 x) { return _mm256_cmp_ps(x, zero(), _CMP_NEQ_UQ); }
inline __m256 is_nan(__m256 x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
inline __m256 below(__m256 a, __m256 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline __m256 add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
inline __m256 sub(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }
inline __m256 mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
inline __m256 div(__m256 a, __m256 b) { return _mm256_div_ps(a, b); }
// minps and maxps return their second operand when either is NaN.
inline __m256 clip(__m256 x, __m256 lo, __m256 hi) {
  return _mm256_min_ps(hi, _mm256_max_ps(lo, x));
}
inline __m256 elu(__m256 x, __m256 alpha) {
  return select(below(x, zero()), mul(alpha, expm1_of_negative(x)), x);
}
inline __m256 sign(__m256 x) {
  const __m256 one = set1(1.0f);
  const __m256 y =
      sub(and_(_mm256_cmp_ps(x, zero(), _CMP_GT_OQ), one), and_(below(x, zero()), one));
  return select(is_nan(x), x, y);
}
inline __m256 quantize(__m256 x, __m256 scale, __m256 zero_point, __m256 lo, __m256 hi) {
  const __m256 q = add(_mm256_round_ps(div(x, scale), 8), zero_point);
  return _mm256_min_ps(_mm256_max_ps(q, lo), hi);
}

MicroFn scalar_definition(MicroOp op) {
  const MicroKernels kernels = elementwise_scalar();
  for (size_t i = 0; i < kernels.size; ++i)
    if (kernels.list[i].op == op && kernels.list[i].compute == Compute::kF32)
      return kernels.list[i].fn;
  return nullptr;  // never: the scalar list is complete
}

// Exponents that are one literal or parameter, as in variance or RMS written out.
void power(const MicroArgs& x) {
  const float exponent = (x.splat & 2) != 0 ? *in(x, 1) : 0.0f;
  if (exponent == 2.0f) return map1(x, [](__m256 a) { return mul(a, a); });
  if (exponent == 3.0f) return map1(x, [](__m256 a) { return mul(mul(a, a), a); });
  scalar_definition(MicroOp::kPow)(x);
}

// True when every value is within the range of sine_f32x8; NaN is not.
bool turns_are_few(const MicroArgs& x) {
  const size_t n = (x.splat & 1) != 0 ? 1 : x.n;
  const auto outside = [](__m256 v) {
    return _mm256_movemask_ps(_mm256_cmp_ps(abs_f32x8(v), set1(kTurnLimit), _CMP_NLE_UQ));
  };
  int any = 0;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) any |= outside(_mm256_loadu_ps(in(x, 0) + i));
  if (i < n) any |= outside(load_tail(in(x, 0) + i, n - i));
  return any == 0;
}
void sine(const MicroArgs& x) {
  if (!turns_are_few(x)) return scalar_definition(MicroOp::kSin)(x);
  map1(x, [](__m256 a) { return sine_f32x8(a, 0); });
}
void cosine(const MicroArgs& x) {
  if (!turns_are_few(x)) return scalar_definition(MicroOp::kCos)(x);
  map1(x, [](__m256 a) { return sine_f32x8(a, 1); });
}

#define OP1(name, expr)             \
  {MicroOp::k##name, Compute::kF32, \
   [](const MicroArgs& x) { map1(x, [](__m256 a) { return expr; }); }}
#define OP2(name, expr)             \
  {MicroOp::k##name, Compute::kF32, \
   [](const MicroArgs& x) { map2(x, [](__m256 a, __m256 b) { return expr; }); }}
#define OP3(name, expr)             \
  {MicroOp::k##name, Compute::kF32, \
   [](const MicroArgs& x) { map3(x, [](__m256 a, __m256 b, __m256 c) { return expr; }); }}
#define COMPARE(name, predicate) OP2(name, truth(_mm256_cmp_ps(a, b, predicate)))

// clang-format off
const MicroKernel kList[] = {
    OP2(Add, add(a, b)),
    OP2(Sub, sub(a, b)),
    OP2(Mul, mul(a, b)),
    OP2(Div, div(a, b)),
    OP2(Min, select(is_nan(a), a, _mm256_min_ps(a, b))),
    OP2(Max, select(is_nan(a), a, _mm256_max_ps(a, b))),
    OP1(Neg, negate(a)),
    OP1(Abs, abs_f32x8(a)),
    OP1(Sign, sign(a)),
    OP1(Sqrt, _mm256_sqrt_ps(a)),
    OP1(Reciprocal, div(set1(1.0f), a)),
    OP1(Exp, exp_f32x8(a)),
    OP1(Log, log_f32x8(a)),
    {MicroOp::kPow, Compute::kF32, power},
    {MicroOp::kSin, Compute::kF32, sine},
    {MicroOp::kCos, Compute::kF32, cosine},
    OP1(Tanh, tanh_f32x8(a)),
    OP1(Sigmoid, sigmoid_f32x8(a)),
    OP1(Erf, erf_f32x8(a)),
    OP1(Relu, _mm256_max_ps(zero(), a)),
    OP3(Clip, clip(a, b, c)),
    OP2(LeakyRelu, select(below(a, zero()), mul(b, a), a)),
    OP2(PRelu, select(below(a, zero()), mul(b, a), a)),
    OP2(Elu, elu(a, b)),
    OP3(Selu, mul(c, elu(a, b))),
    OP3(HardSigmoid, clip(add(mul(b, a), c), zero(), set1(1.0f))),
    OP1(HardSwish, mul(a, clip(add(mul(a, set1(1.0f / 6)), set1(0.5f)), zero(), set1(1.0f)))),
    OP1(Silu, mul(a, sigmoid_f32x8(a))),
    OP2(Swish, mul(a, sigmoid_f32x8(mul(b, a)))),
    OP1(Gelu, gelu_f32x8(a)),
    OP1(GeluTanh, gelu_tanh_f32x8(a)),
    OP1(Mish, mish_f32x8(a)),
    OP1(Softplus, softplus_f32x8(a)),
    OP1(Softsign, div(a, add(set1(1.0f), abs_f32x8(a)))),
    OP2(ThresholdedRelu, and_(_mm256_or_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ), is_nan(a)), a)),
    OP1(Floor, _mm256_floor_ps(a)),
    OP1(Ceil, _mm256_ceil_ps(a)),
    OP1(Round, _mm256_round_ps(a, 8)),
    OP1(Not, truth(_mm256_cmp_ps(a, zero(), _CMP_EQ_OQ))),
    OP2(And, truth(and_(is_true(a), is_true(b)))),
    OP2(Or, truth(_mm256_or_ps(is_true(a), is_true(b)))),
    OP2(Xor, truth(_mm256_xor_ps(is_true(a), is_true(b)))),
    COMPARE(Equal, _CMP_EQ_OQ),
    COMPARE(Greater, _CMP_GT_OQ),
    COMPARE(Less, _CMP_LT_OQ),
    COMPARE(GreaterOrEqual, _CMP_GE_OQ),
    COMPARE(LessOrEqual, _CMP_LE_OQ),
    OP3(Where, select(is_true(a), b, c)),
    OP1(IsNaN, truth(is_nan(a))),
    OP3(Dequantize, mul(sub(a, c), b)),
    {MicroOp::kQuantize, Compute::kF32, [](const MicroArgs& x) {
       map5(x, [](__m256 a, __m256 b, __m256 c, __m256 lo, __m256 hi) { return quantize(a, b, c, lo, hi); });
     }},
};
// clang-format on

}  // namespace

MicroKernels elementwise_avx2() { return {kList, sizeof kList / sizeof kList[0]}; }

}  // namespace lepton
