// Every pair of stored dtype and compute type, one loop each. The loops are plain so that the
// compiler may vectorise them; what matters here is that each conversion is defined for every
// value.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ops/convert.h"
#include "ops/float16.h"

namespace lepton {
namespace {

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};
struct Boolean {
  uint8_t value;
};

template <typename I, typename F>
I saturate_to(F x) {
  // The largest F below or at I's range: 2^digits is exact in every F.
  constexpr F kEnd = static_cast<F>(I(1) << (std::numeric_limits<I>::digits - 1)) * F(2);
  constexpr F kBegin = std::is_signed<I>::value ? -kEnd : F(0);
  if (x != x) return 0;
  if (x >= kEnd) return std::numeric_limits<I>::max();
  if (x < kBegin) return std::numeric_limits<I>::min();
  return static_cast<I>(x);
}

template <typename I, typename F>
I integer_from_float(F x) {
  if constexpr (std::is_same<I, int32_t>::value || std::is_same<I, int64_t>::value) {
    return saturate_to<I>(x);
  } else if constexpr (std::is_same<I, uint64_t>::value) {
    return x < F(0) ? static_cast<uint64_t>(saturate_to<int64_t>(x)) : saturate_to<uint64_t>(x);
  } else {
    return static_cast<I>(static_cast<uint64_t>(saturate_to<int64_t>(x)));
  }
}

// Compute type C from stored type S.
template <typename C, typename S>
C load_one(S s) {
  if constexpr (std::is_same<S, Half>::value || std::is_same<S, BFloat>::value) {
    const float f = std::is_same<S, Half>::value ? f32_from_f16(s.bits) : f32_from_bf16(s.bits);
    return load_one<C>(f);
  } else if constexpr (std::is_same<S, Boolean>::value) {
    return static_cast<C>(s.value != 0);
  } else if constexpr (std::is_floating_point<S>::value && std::is_integral<C>::value) {
    return integer_from_float<C>(s);
  } else {
    return static_cast<C>(s);
  }
}

// f32 that rounds to any narrower float as c itself would.
inline float narrow(float c) { return c; }
inline float narrow(double c) { return f32_round_to_odd(c); }
template <typename I>
float narrow_integer(I c) {
  // A double holds every integer below 2^53; beyond, both narrow types see only far-away bits, but
  // the sticky bit must survive.
  constexpr int kSpare = 11;
  if constexpr (std::is_signed<I>::value) {
    if (c < 0) return -narrow_integer(uint64_t{0} - static_cast<uint64_t>(c));
    return narrow_integer(static_cast<uint64_t>(c));
  } else {
    if (c >> 53 == 0) return f32_round_to_odd(static_cast<double>(c));
    const uint64_t low = c & ((uint64_t{1} << kSpare) - 1);
    const uint64_t high = (c >> kSpare) | (low != 0 ? 1 : 0);
    return f32_round_to_odd(static_cast<double>(high) * 2048.0);
  }
}

template <typename S, typename C>
S store_one(C c) {
  if constexpr (std::is_same<S, Half>::value || std::is_same<S, BFloat>::value) {
    float f;
    if constexpr (std::is_integral<C>::value)
      f = narrow_integer(c);
    else
      f = narrow(c);
    return {std::is_same<S, Half>::value ? f16_from_f32(f) : bf16_from_f32(f)};
  } else if constexpr (std::is_same<S, Boolean>::value) {
    return {static_cast<uint8_t>(c != C(0))};
  } else if constexpr (std::is_floating_point<C>::value && std::is_integral<S>::value) {
    return integer_from_float<S>(c);
  } else {
    return static_cast<S>(c);
  }
}

template <typename C, typename S>
void load(const void* src, void* dst, size_t n) {
  const S* s = static_cast<const S*>(src);
  C* d = static_cast<C*>(dst);
  for (size_t i = 0; i < n; ++i) d[i] = load_one<C>(s[i]);
}

template <typename C, typename S>
void store(const void* src, void* dst, size_t n) {
  const C* s = static_cast<const C*>(src);
  S* d = static_cast<S*>(dst);
  for (size_t i = 0; i < n; ++i) d[i] = store_one<S>(s[i]);
}

#define ROW(compute, C, dtype, S) {Compute::compute, DType::dtype, load<C, S>, store<C, S>}
#define ROWS(compute, C)                                                                           \
  ROW(compute, C, kF32, float), ROW(compute, C, kU8, uint8_t), ROW(compute, C, kS8, int8_t),       \
      ROW(compute, C, kU16, uint16_t), ROW(compute, C, kS16, int16_t),                             \
      ROW(compute, C, kS32, int32_t), ROW(compute, C, kS64, int64_t),                              \
      ROW(compute, C, kBool, Boolean), ROW(compute, C, kF16, Half), ROW(compute, C, kF64, double), \
      ROW(compute, C, kU32, uint32_t), ROW(compute, C, kU64, uint64_t),                            \
      ROW(compute, C, kBF16, BFloat)

const ConvertKernel kList[] = {
    ROWS(kF32, float),
    ROWS(kF64, double),
    ROWS(kI64, int64_t),
    ROWS(kU64, uint64_t),
};

}  // namespace

ConvertKernels convert_scalar() { return {kList, sizeof kList / sizeof kList[0]}; }

}  // namespace lepton
