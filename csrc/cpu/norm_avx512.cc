// Passes over a row in L1, bound by loads and stores; sums keep four accumulators of sixteen lanes.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx512.h"
#include "ops/norm.h"

namespace lepton {
namespace {

constexpr size_t kBlock = 512;

// Accumulators have names of their own: indexed ones would live in memory at -O2.
template <typename F>
inline float sum_block(const float* x, size_t n, const F& f) {
  __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
  size_t i = 0;
  for (; i + 64 <= n; i += 64) {
    a = _mm512_add_ps(a, f(_mm512_loadu_ps(x + i)));
    b = _mm512_add_ps(b, f(_mm512_loadu_ps(x + i + 16)));
    c = _mm512_add_ps(c, f(_mm512_loadu_ps(x + i + 32)));
    d = _mm512_add_ps(d, f(_mm512_loadu_ps(x + i + 48)));
  }
  for (; i + 16 <= n; i += 16) a = _mm512_add_ps(a, f(_mm512_loadu_ps(x + i)));
  if (i < n) {
    const __mmask16 lanes = first_lanes(n - i);
    b = _mm512_mask_add_ps(b, lanes, b, f(_mm512_maskz_loadu_ps(lanes, x + i)));
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
}

template <typename F>
inline double sum_row(const float* x, size_t n, const F& f) {
  double total = 0;
  for (size_t i = 0; i < n; i += kBlock)
    total += static_cast<double>(sum_block(x + i, n - i < kBlock ? n - i : kBlock, f));
  return total;
}

double sum(const float* x, size_t n) {
  return sum_row(x, n, [](__m512 v) { return v; });
}

double sum_square(const float* x, size_t n, float mean) {
  const __m512 m = set16(mean);
  return sum_row(x, n, [m](__m512 v) {
    const __m512 d = sub(v, m);
    return mul(d, d);
  });
}

void affine(const float* x, float* y, size_t n, float scale, float shift) {
  const __m512 s = set16(scale), b = set16(shift);
  size_t i = 0;
  for (; i + 16 <= n; i += 16) _mm512_storeu_ps(y + i, fma(_mm512_loadu_ps(x + i), s, b));
  if (i == n) return;
  const __mmask16 lanes = first_lanes(n - i);
  _mm512_mask_storeu_ps(y + i, lanes, fma(_mm512_maskz_loadu_ps(lanes, x + i), s, b));
}

// Sixteen values with what belongs to their columns; masked loads only where the row ends.
struct Normalizer {
  explicit Normalizer(const NormalizeParams& params) : p(params) {}
  template <typename Load>
  __m512 operator()(size_t i, const Load& load) const {
    const __m512 v = mul(mul(sub(load(p.x + i), mean), inverse), load(p.gamma + i));
    return p.beta == nullptr ? v : _mm512_add_ps(v, load(p.beta + i));
  }
  const NormalizeParams p;
  const __m512 mean = set16(p.mean), inverse = set16(p.inverse);
};

void normalize(const NormalizeParams& p) {
  const Normalizer normalizer(p);
  float* const y = p.y;
  const size_t n = p.n;
  size_t i = 0;
  for (; i + 16 <= n; i += 16)
    _mm512_storeu_ps(y + i, normalizer(i, [](const float* x) { return _mm512_loadu_ps(x); }));
  if (i == n) return;
  const __mmask16 lanes = first_lanes(n - i);
  _mm512_mask_storeu_ps(y + i, lanes, normalizer(i, [lanes](const float* x) {
                          return _mm512_maskz_loadu_ps(lanes, x);
                        }));
}

}  // namespace

NormKernels norm_f32_avx512() { return {sum, sum_square, affine, normalize}; }

}  // namespace lepton
