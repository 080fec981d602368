// Rotary position embedding, eight pairs at a time: loads and stores are the limit. Interleaved
// pairs are turned in place: cos and sin are spread over both lanes of a pair, its lanes exchanged
// for the sine's product, and addsub puts the minus where the first of a pair is.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx2.h"
#include "ops/rotary.h"

namespace lepton {
namespace {

void halves(const float* x, const float* cos, const float* sin, size_t half, float* y) {
  size_t i = 0;
  for (; i + 8 <= half; i += 8) {
    const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + half + i);
    const __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
    _mm256_storeu_ps(y + i, _mm256_sub_ps(_mm256_mul_ps(c, a), _mm256_mul_ps(s, b)));
    _mm256_storeu_ps(y + half + i, _mm256_add_ps(_mm256_mul_ps(s, a), _mm256_mul_ps(c, b)));
  }
  if (i == half) return;
  const size_t n = half - i;
  const __m256 a = load_tail(x + i, n), b = load_tail(x + half + i, n);
  const __m256 c = load_tail(cos + i, n), s = load_tail(sin + i, n);
  store_tail(y + i, _mm256_sub_ps(_mm256_mul_ps(c, a), _mm256_mul_ps(s, b)), n);
  store_tail(y + half + i, _mm256_add_ps(_mm256_mul_ps(s, a), _mm256_mul_ps(c, b)), n);
}

// v0 v0 v1 v1 v2 v2 v3 v3
inline __m256 twice_each(const float* v) {
  const __m256 four = _mm256_castps128_ps256(_mm_loadu_ps(v));
  return _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

void interleaved(const float* x, const float* cos, const float* sin, size_t half, float* y) {
  size_t i = 0;
  for (; i + 4 <= half; i += 4) {
    const __m256 pairs = _mm256_loadu_ps(x + 2 * i);
    const __m256 exchanged = _mm256_permute_ps(pairs, 0xb1);
    const __m256 by_cos = _mm256_mul_ps(twice_each(cos + i), pairs);
    const __m256 by_sin = _mm256_mul_ps(twice_each(sin + i), exchanged);
    _mm256_storeu_ps(y + 2 * i, _mm256_addsub_ps(by_cos, by_sin));
  }
  for (; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = cos[i] * a - sin[i] * b;
    y[2 * i + 1] = sin[i] * a + cos[i] * b;
  }
}

}  // namespace

RotaryKernels rotary_f32_avx2() { return {halves, interleaved}; }

}  // namespace lepton
