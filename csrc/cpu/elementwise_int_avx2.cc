// Integer micro-ops that masks, indices and position counts use, four 64-bit lanes at a time; the
// last lanes through masked loads and stores. The rest runs the scalar definitions.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/elementwise.h"

namespace lepton {
namespace {

inline __m256i tail_mask(size_t n) {
  alignas(32) static const int64_t kMask[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 4 - n));
}

struct Operand {
  const int64_t* data;
  bool splat;
  __m256i value;
  Operand(const MicroArgs& x, int i)
      : data(static_cast<const int64_t*>(x.in[i])),
        splat((x.splat >> i & 1) != 0),
        value(splat ? _mm256_set1_epi64x(*data) : _mm256_setzero_si256()) {}
  __m256i load(size_t i) const {
    return splat ? value : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + i));
  }
  __m256i tail(size_t i, __m256i mask) const {
    return splat ? value
                 : _mm256_maskload_epi64(reinterpret_cast<const long long*>(data + i), mask);
  }
};

template <typename F, typename... Operands>
inline void loop(const MicroArgs& x, const F& f, const Operands&... operands) {
  int64_t* out = static_cast<int64_t*>(x.out);
  size_t i = 0;
  for (; i + 4 <= x.n; i += 4)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), f(operands.load(i)...));
  if (i == x.n) return;
  const __m256i mask = tail_mask(x.n - i);
  _mm256_maskstore_epi64(reinterpret_cast<long long*>(out + i), mask, f(operands.tail(i, mask)...));
}

inline __m256i truth(__m256i mask) { return _mm256_srli_epi64(mask, 63); }
inline __m256i invert(__m256i mask) { return _mm256_xor_si256(mask, _mm256_set1_epi64x(-1)); }
inline __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi64(a, b); }
inline __m256i greater(__m256i a, __m256i b) { return _mm256_cmpgt_epi64(a, b); }
inline __m256i is_zero(__m256i a) { return equal(a, _mm256_setzero_si256()); }
inline __m256i select(__m256i mask, __m256i a, __m256i b) { return _mm256_blendv_epi8(b, a, mask); }
// The low 64 bits of a product, from 32-bit halves.
inline __m256i multiply(__m256i a, __m256i b) {
  const __m256i cross = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(a, 32), b),
                                         _mm256_mul_epu32(a, _mm256_srli_epi64(b, 32)));
  return _mm256_add_epi64(_mm256_mul_epu32(a, b), _mm256_slli_epi64(cross, 32));
}

#define OP1(name, expr)             \
  {MicroOp::k##name, Compute::kI64, \
   [](const MicroArgs& x) { loop(x, [](__m256i a) { return expr; }, Operand(x, 0)); }}
#define OP2(name, expr)                                                                \
  {MicroOp::k##name, Compute::kI64, [](const MicroArgs& x) {                           \
     loop(x, [](__m256i a, __m256i b) { return expr; }, Operand(x, 0), Operand(x, 1)); \
   }}
#define OP3(name, expr)                                                                         \
  {MicroOp::k##name, Compute::kI64, [](const MicroArgs& x) {                                    \
     loop(                                                                                      \
         x, [](__m256i a, __m256i b, __m256i c) { return expr; }, Operand(x, 0), Operand(x, 1), \
         Operand(x, 2));                                                                        \
   }}

// clang-format off
const MicroKernel kList[] = {
    OP2(Add, _mm256_add_epi64(a, b)),
    OP2(Sub, _mm256_sub_epi64(a, b)),
    OP2(Mul, multiply(a, b)),
    OP2(Min, select(greater(a, b), b, a)),
    OP2(Max, select(greater(a, b), a, b)),
    OP1(Neg, _mm256_sub_epi64(_mm256_setzero_si256(), a)),
    OP1(Not, truth(is_zero(a))),
    OP2(And, truth(invert(_mm256_or_si256(is_zero(a), is_zero(b))))),
    OP2(Or, truth(invert(_mm256_and_si256(is_zero(a), is_zero(b))))),
    OP2(Xor, truth(_mm256_xor_si256(is_zero(a), is_zero(b)))),
    OP2(Equal, truth(equal(a, b))),
    OP2(Greater, truth(greater(a, b))),
    OP2(Less, truth(greater(b, a))),
    OP2(GreaterOrEqual, truth(invert(greater(b, a)))),
    OP2(LessOrEqual, truth(invert(greater(a, b)))),
    OP3(Where, select(is_zero(a), c, b)),
    OP2(BitwiseAnd, _mm256_and_si256(a, b)),
    OP2(BitwiseOr, _mm256_or_si256(a, b)),
    OP2(BitwiseXor, _mm256_xor_si256(a, b)),
    OP1(BitwiseNot, invert(a)),
};
// clang-format on

}  // namespace

MicroKernels elementwise_i64_avx2() { return {kList, sizeof kList / sizeof kList[0]}; }

}  // namespace lepton
