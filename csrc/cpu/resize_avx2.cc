// Resize kernels in eights. blend streams its rows and is bound by memory; gather is bound by the
// eight loads each gather instruction makes. The last n % 8 elements take the same operations one
// at a time.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/resize.h"

namespace lepton {
namespace {

float lerp(float a, float b, float weight) { return a + weight * (b - a); }

__m256 lerp(__m256 a, __m256 b, __m256 weight) {
  return _mm256_add_ps(a, _mm256_mul_ps(weight, _mm256_sub_ps(b, a)));
}

__m256 gather8(const ResizeGatherParams& p, size_t at) {
  const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p.index + at));
  return _mm256_i32gather_ps(p.src, index, 4);
}

}  // namespace

void resize_blend_f32_avx2(const ResizeBlendParams& p) {
  size_t i = 0;
  if (p.taps == 2) {
    const float *row0 = p.rows[0], *row1 = p.rows[1];
    const __m256 weight = _mm256_set1_ps(p.weights[1]);
    for (; i + 8 <= p.n; i += 8)
      _mm256_storeu_ps(p.dst + i,
                       lerp(_mm256_loadu_ps(row0 + i), _mm256_loadu_ps(row1 + i), weight));
    for (; i < p.n; ++i) p.dst[i] = lerp(row0[i], row1[i], p.weights[1]);
    return;
  }
  for (; i + 8 <= p.n; i += 8) {
    __m256 sum = _mm256_mul_ps(_mm256_set1_ps(p.weights[0]), _mm256_loadu_ps(p.rows[0] + i));
    for (size_t t = 1; t < p.taps; ++t)
      sum = _mm256_add_ps(
          sum, _mm256_mul_ps(_mm256_set1_ps(p.weights[t]), _mm256_loadu_ps(p.rows[t] + i)));
    _mm256_storeu_ps(p.dst + i, sum);
  }
  for (; i < p.n; ++i) {
    float sum = p.weights[0] * p.rows[0][i];
    for (size_t t = 1; t < p.taps; ++t) sum += p.weights[t] * p.rows[t][i];
    p.dst[i] = sum;
  }
}

void resize_gather_f32_avx2(const ResizeGatherParams& p) {
  size_t i = 0;
  for (; i + 8 <= p.n; i += 8) {
    const __m256 first = gather8(p, i);
    __m256 sum;
    if (p.taps == 2) {
      sum = lerp(first, gather8(p, p.stride + i), _mm256_loadu_ps(p.weights + p.stride + i));
    } else {
      sum = _mm256_mul_ps(_mm256_loadu_ps(p.weights + i), first);
      for (size_t t = 1; t < p.taps; ++t)
        sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_loadu_ps(p.weights + t * p.stride + i),
                                               gather8(p, t * p.stride + i)));
    }
    _mm256_storeu_ps(p.dst + i, sum);
  }
  for (; i < p.n; ++i) {
    const float first = p.src[p.index[i]];
    if (p.taps == 2) {
      p.dst[i] = lerp(first, p.src[p.index[p.stride + i]], p.weights[p.stride + i]);
      continue;
    }
    float sum = p.weights[i] * first;
    for (size_t t = 1; t < p.taps; ++t)
      sum += p.weights[t * p.stride + i] * p.src[p.index[t * p.stride + i]];
    p.dst[i] = sum;
  }
}

}  // namespace lepton
