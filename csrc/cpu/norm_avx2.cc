// Passes over a row in L1, bound by loads and stores; sums keep four accumulators of eight lanes.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx2.h"
#include "ops/norm.h"

namespace lepton {
namespace {

constexpr size_t kBlock = 512;

// Accumulators have names of their own: indexed ones would live in memory at -O2.
template <typename F>
inline float sum_block(const float* x, size_t n, const F& f) {
  __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    a = _mm256_add_ps(a, f(_mm256_loadu_ps(x + i)));
    b = _mm256_add_ps(b, f(_mm256_loadu_ps(x + i + 8)));
    c = _mm256_add_ps(c, f(_mm256_loadu_ps(x + i + 16)));
    d = _mm256_add_ps(d, f(_mm256_loadu_ps(x + i + 24)));
  }
  for (; i + 8 <= n; i += 8) a = _mm256_add_ps(a, f(_mm256_loadu_ps(x + i)));
  if (i < n) {
    const __m256 lanes = _mm256_castsi256_ps(tail_mask(n - i));
    b = _mm256_add_ps(b, and_(lanes, f(load_tail(x + i, n - i))));
  }
  return sum_lanes(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
}

template <typename F>
inline double sum_row(const float* x, size_t n, const F& f) {
  double total = 0;
  for (size_t i = 0; i < n; i += kBlock)
    total += static_cast<double>(sum_block(x + i, n - i < kBlock ? n - i : kBlock, f));
  return total;
}

double sum(const float* x, size_t n) {
  return sum_row(x, n, [](__m256 v) { return v; });
}

double sum_square(const float* x, size_t n, float mean) {
  const __m256 m = set1(mean);
  return sum_row(x, n, [m](__m256 v) {
    const __m256 d = _mm256_sub_ps(v, m);
    return _mm256_mul_ps(d, d);
  });
}

void affine(const float* x, float* y, size_t n, float scale, float shift) {
  const __m256 s = set1(scale), b = set1(shift);
  size_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, fma(_mm256_loadu_ps(x + i), s, b));
  if (i < n) store_tail(y + i, fma(load_tail(x + i, n - i), s, b), n - i);
}

void normalize(const NormalizeParams& p) {
  const __m256 mean = set1(p.mean), inverse = set1(p.inverse);
  const auto scaled = [&](__m256 x, __m256 gamma) {
    return _mm256_mul_ps(_mm256_mul_ps(_mm256_sub_ps(x, mean), inverse), gamma);
  };
  size_t i = 0;
  for (; i + 8 <= p.n; i += 8) {
    __m256 v = scaled(_mm256_loadu_ps(p.x + i), _mm256_loadu_ps(p.gamma + i));
    if (p.beta != nullptr) v = _mm256_add_ps(v, _mm256_loadu_ps(p.beta + i));
    _mm256_storeu_ps(p.y + i, v);
  }
  if (i == p.n) return;
  const size_t rest = p.n - i;
  __m256 v = scaled(load_tail(p.x + i, rest), load_tail(p.gamma + i, rest));
  if (p.beta != nullptr) v = _mm256_add_ps(v, load_tail(p.beta + i, rest));
  store_tail(p.y + i, v, rest);
}

}  // namespace

NormKernels norm_f32_avx2() { return {sum, sum_square, affine, normalize}; }

}  // namespace lepton
