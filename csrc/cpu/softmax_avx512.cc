// Three passes over a row in L1, as in softmax_avx2.cc: maximum, exponentials with their sum,
// scale; bound by the polynomial of exp. Logarithms and columns are those of AVX2.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx512.h"
#include "ops/softmax.h"

namespace lepton {
namespace {

inline float max_of(const float* x, size_t n) {
  __m512 a = set16(-__builtin_inff()), b = a;
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    a = _mm512_max_ps(_mm512_loadu_ps(x + i), a);
    b = _mm512_max_ps(_mm512_loadu_ps(x + i + 16), b);
  }
  for (; i < n; i += 16) {
    const __mmask16 lanes = first_lanes(n - i);
    a = _mm512_mask_max_ps(a, lanes, _mm512_maskz_loadu_ps(lanes, x + i), a);
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(a, b));
}

inline float exp_and_sum(const float* x, float* y, size_t n, __m512 max) {
  __m512 sum = _mm512_setzero_ps();
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512 e = exp_f32x16(sub(_mm512_loadu_ps(x + i), max));
    _mm512_storeu_ps(y + i, e);
    sum = _mm512_add_ps(sum, e);
  }
  if (i < n) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 e = exp_f32x16(sub(_mm512_maskz_loadu_ps(lanes, x + i), max));
    _mm512_mask_storeu_ps(y + i, lanes, e);
    sum = _mm512_mask_add_ps(sum, lanes, sum, e);
  }
  return _mm512_reduce_add_ps(sum);
}

void row(const float* x, float* y, size_t n, bool log) {
  if (log) return softmax_f32_avx2().row(x, y, n, log);
  const __m512 inverse = set16(1.0f / exp_and_sum(x, y, n, set16(max_of(x, n))));
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes(n - i);
    _mm512_mask_storeu_ps(y + i, lanes, mul(_mm512_maskz_loadu_ps(lanes, y + i), inverse));
  }
}

}  // namespace

SoftmaxKernels softmax_f32_avx512() { return {row, softmax_f32_avx2().columns}; }

}  // namespace lepton
