// Floating micro-ops for f32 and f64: the definitions.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/elementwise_scalar.h"
#include "ops/elementwise.h"

namespace lepton {
namespace {

template <typename T>
void identity(const MicroArgs& x) {
  if (x.splat & 1) {
    const T value = *static_cast<const T*>(x.in[0]);
    T* out = static_cast<T*>(x.out);
    for (size_t i = 0; i < x.n; ++i) out[i] = value;
  } else if (x.in[0] != x.out) {
    std::memcpy(x.out, x.in[0], x.n * sizeof(T));
  }
}

template <typename T>
T sigmoid(T a) {
  return T(1) / (T(1) + std::exp(-a));
}
template <typename T>
T softplus(T a) {
  return (a > T(0) ? a : T(0)) + std::log1p(std::exp(-std::fabs(a)));
}
template <typename T>
T clip(T a, T lo, T hi) {
  const T t = a < lo ? lo : a;
  return t > hi ? hi : t;
}
template <typename T>
T modulo(T a, T b) {
  const T r = std::fmod(a, b);
  return r != T(0) && (r < T(0)) != (b < T(0)) ? r + b : r;
}
template <typename T>
T gelu_tanh(T a) {
  const T inner = T(0.7978845608028653558798921198687637369517) * (a + T(0.044715) * a * a * a);
  return T(0.5) * a * (T(1) + std::tanh(inner));
}

template <typename T>
void quantize(const MicroArgs& x) {
  const Operand<T> a(x, 0), scale(x, 1), zero_point(x, 2), lo(x, 3), hi(x, 4);
  T* out = static_cast<T*>(x.out);
  for (size_t i = 0; i < x.n; ++i) {
    T v = std::rint(a[i] / scale[i]) + zero_point[i];
    v = v > lo[i] ? v : lo[i];
    out[i] = v < hi[i] ? v : hi[i];
  }
}

template <typename T>
constexpr Compute kComputeOf = std::is_same<T, float>::value ? Compute::kF32 : Compute::kF64;

#define OP1(name, expr)             \
  {MicroOp::k##name, kComputeOf<T>, \
   [](const MicroArgs& x) { run1<T>(x, [](T a) -> T { return expr; }); }}
#define OP2(name, expr)             \
  {MicroOp::k##name, kComputeOf<T>, \
   [](const MicroArgs& x) { run2<T>(x, [](T a, T b) -> T { return expr; }); }}
#define OP3(name, expr)             \
  {MicroOp::k##name, kComputeOf<T>, \
   [](const MicroArgs& x) { run3<T>(x, [](T a, T b, T c) -> T { return expr; }); }}

// clang-format off
template <typename T>
MicroKernels table() {
  static const MicroKernel list[] = {
    {MicroOp::kIdentity, kComputeOf<T>, identity<T>},
    OP2(Add, a + b),
    OP2(Sub, a - b),
    OP2(Mul, a * b),
    OP2(Div, a / b),
    OP2(Mod, modulo(a, b)),
    OP2(Fmod, std::fmod(a, b)),
    OP2(Pow, std::pow(a, b)),
    OP2(Min, a != a || a < b ? a : b),
    OP2(Max, a != a || a > b ? a : b),
    OP1(Neg, -a),
    OP1(Abs, std::fabs(a)),
    OP1(Sign, a != a ? a : T((a > T(0)) - (a < T(0)))),
    OP1(Sqrt, std::sqrt(a)),
    OP1(Reciprocal, T(1) / a),
    OP1(Exp, std::exp(a)),
    OP1(Log, std::log(a)),
    OP1(Sin, std::sin(a)),
    OP1(Cos, std::cos(a)),
    OP1(Tan, std::tan(a)),
    OP1(Asin, std::asin(a)),
    OP1(Acos, std::acos(a)),
    OP1(Atan, std::atan(a)),
    OP1(Sinh, std::sinh(a)),
    OP1(Cosh, std::cosh(a)),
    OP1(Tanh, std::tanh(a)),
    OP1(Asinh, std::asinh(a)),
    OP1(Acosh, std::acosh(a)),
    OP1(Atanh, std::atanh(a)),
    OP1(Sigmoid, sigmoid(a)),
    OP1(Erf, std::erf(a)),
    OP1(Relu, a < T(0) ? T(0) : a),
    OP3(Clip, clip(a, b, c)),
    OP2(LeakyRelu, a < T(0) ? b * a : a),
    OP2(PRelu, a < T(0) ? b * a : a),
    OP2(Elu, a < T(0) ? b * std::expm1(a) : a),
    OP3(Selu, a < T(0) ? c * (b * std::expm1(a)) : c * a),
    OP2(Celu, a < T(0) ? b * std::expm1(a / b) : a),
    OP3(HardSigmoid, clip(b * a + c, T(0), T(1))),
    OP1(HardSwish, a * clip(a * T(1.0 / 6) + T(0.5), T(0), T(1))),
    OP1(Silu, a * sigmoid(a)),
    OP2(Swish, a * sigmoid(b * a)),
    OP1(Gelu, T(0.5) * a * std::erfc(a * T(-0.7071067811865475244008443621048490393))),
    OP1(GeluTanh, gelu_tanh(a)),
    OP1(Mish, a * std::tanh(softplus(a))),
    OP1(Softplus, softplus(a)),
    OP1(Softsign, a / (T(1) + std::fabs(a))),
    OP2(ThresholdedRelu, a > b ? a : a != a ? a : T(0)),
    OP3(Shrink, a < -b ? a + c : a > b ? a - c : T(0)),
    OP1(Floor, std::floor(a)),
    OP1(Ceil, std::ceil(a)),
    OP1(Round, std::rint(a)),
    OP1(Not, T(a == T(0))),
    OP2(And, T(a != T(0) && b != T(0))),
    OP2(Or, T(a != T(0) || b != T(0))),
    OP2(Xor, T((a != T(0)) != (b != T(0)))),
    OP2(Equal, T(a == b)),
    OP2(Greater, T(a > b)),
    OP2(Less, T(a < b)),
    OP2(GreaterOrEqual, T(a >= b)),
    OP2(LessOrEqual, T(a <= b)),
    OP3(Where, a != T(0) ? b : c),
    OP1(IsNaN, T(a != a)),
    OP3(IsInf, T((b != T(0) && a == -std::numeric_limits<T>::infinity()) ||
                 (c != T(0) && a == std::numeric_limits<T>::infinity()))),
    OP3(Dequantize, (a - c) * b),
    {MicroOp::kQuantize, kComputeOf<T>, quantize<T>},
};
  return {list, sizeof list / sizeof list[0]};
}
// clang-format on

}  // namespace

MicroKernels elementwise_scalar() { return table<float>(); }
MicroKernels elementwise_f64_scalar() { return table<double>(); }

}  // namespace lepton
