// Integer micro-ops for i64 and u64. Arithmetic runs in uint64_t, where wrapping is defined; only
// order, division and right shift look at the sign.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/elementwise_scalar.h"
#include "ops/elementwise.h"

namespace lepton {
namespace {

inline uint64_t u(uint64_t a) { return a; }
inline uint64_t u(int64_t a) { return static_cast<uint64_t>(a); }

template <typename T>
T divide(T a, T b) {
  if (b == 0) return 0;
  if (std::is_signed<T>::value && b == T(-1)) return T(0 - u(a));  // the most negative wraps
  return a / b;
}
template <typename T>
T remainder(T a, T b) {
  if (b == 0 || (std::is_signed<T>::value && b == T(-1))) return 0;
  return a % b;
}
template <typename T>
T modulo(T a, T b) {
  const T r = remainder(a, b);
  return std::is_signed<T>::value && r != 0 && (r < 0) != (b < 0) ? T(r + b) : r;
}
template <typename T>
T power(T base, T exponent) {
  if (std::is_signed<T>::value && exponent < 0) {
    if (base == T(1)) return 1;
    if (base == T(-1)) return u(exponent) & 1 ? T(-1) : T(1);
    return 0;
  }
  uint64_t result = 1, square = u(base);
  for (uint64_t e = u(exponent); e != 0; e >>= 1, square *= square)
    if (e & 1) result *= square;
  return T(result);
}
template <typename T>
T clip(T a, T lo, T hi) {
  const T t = a < lo ? lo : a;
  return t > hi ? hi : t;
}
template <typename T>
T shift_left(T a, T b) {
  return u(b) > 63 ? T(0) : T(u(a) << u(b));
}
template <typename T>
T shift_right(T a, T b) {
  if (u(b) > 63) return a < 0 ? T(-1) : T(0);
  return a >> u(b);
}

template <typename T>
void identity(const MicroArgs& x) {
  const Operand<T> a(x, 0);
  T* out = static_cast<T*>(x.out);
  for (size_t i = 0; i < x.n; ++i) out[i] = a[i];
}

template <typename T>
constexpr Compute kComputeOf = std::is_same<T, int64_t>::value ? Compute::kI64 : Compute::kU64;

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
    OP2(Add, T(u(a) + u(b))),
    OP2(Sub, T(u(a) - u(b))),
    OP2(Mul, T(u(a) * u(b))),
    OP2(Div, divide(a, b)),
    OP2(Mod, modulo(a, b)),
    OP2(Fmod, remainder(a, b)),
    OP2(Pow, power(a, b)),
    OP2(Min, a < b ? a : b),
    OP2(Max, a > b ? a : b),
    OP1(Neg, T(0 - u(a))),
    OP1(Abs, a < 0 ? T(0 - u(a)) : a),
    OP1(Sign, T(a > 0) - T(a < 0)),
    OP1(Relu, a < 0 ? T(0) : a),
    OP3(Clip, clip(a, b, c)),
    OP2(PRelu, a < 0 ? T(u(a) * u(b)) : a),
    OP1(Floor, a),
    OP1(Ceil, a),
    OP1(Round, a),
    OP1(Not, T(a == 0)),
    OP2(And, T(a != 0 && b != 0)),
    OP2(Or, T(a != 0 || b != 0)),
    OP2(Xor, T((a != 0) != (b != 0))),
    OP2(Equal, T(a == b)),
    OP2(Greater, T(a > b)),
    OP2(Less, T(a < b)),
    OP2(GreaterOrEqual, T(a >= b)),
    OP2(LessOrEqual, T(a <= b)),
    OP3(Where, a != 0 ? b : c),
    OP2(BitwiseAnd, a & b),
    OP2(BitwiseOr, a | b),
    OP2(BitwiseXor, a ^ b),
    OP1(BitwiseNot, ~a),
    OP2(BitShiftLeft, shift_left(a, b)),
    OP2(BitShiftRight, shift_right(a, b)),
};
  return {list, sizeof list / sizeof list[0]};
}
// clang-format on

}  // namespace

MicroKernels elementwise_i64_scalar() { return table<int64_t>(); }
MicroKernels elementwise_u64_scalar() { return table<uint64_t>(); }

}  // namespace lepton
