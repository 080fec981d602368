// Divisions of many floats by one, for the AVX2 kernels that quantise. Internal linkage throughout.
#pragma once

#include <immintrin.h>

namespace lepton {
namespace {

// v / divisor.
struct Divider {
  explicit Divider(float divisor) : divisor_f32x8(_mm256_set1_ps(divisor)) {}
  __m256 operator()(__m256 v) const { return _mm256_div_ps(v, divisor_f32x8); }
  __m256 divisor_f32x8;
};

// The same bits from the correctly rounded reciprocal and what it lacks: their sum brings the
// quotient within a unit of its last place, and one correction by an exact remainder rounds it
// correctly (Markstein, IBM J. Res. Dev. 34(1), 1990). Needs every product to stay normal, or so
// small that it rounds to zero anyway.
struct ReciprocalDivider {
  explicit ReciprocalDivider(float divisor)
      : divisor_f32x8(_mm256_set1_ps(divisor)),
        reciprocal_f32x8(_mm256_set1_ps(1.f / divisor)),
        rest_f32x8(_mm256_set1_ps(static_cast<float>(1. / divisor - 1.f / divisor))) {}
  __m256 operator()(__m256 v) const {
    const __m256 q_f32x8 = _mm256_fmadd_ps(v, reciprocal_f32x8, _mm256_mul_ps(v, rest_f32x8));
    const __m256 left_f32x8 = _mm256_fnmadd_ps(q_f32x8, divisor_f32x8, v);
    return _mm256_fmadd_ps(left_f32x8, reciprocal_f32x8, q_f32x8);
  }
  __m256 divisor_f32x8, reciprocal_f32x8, rest_f32x8;
};

}  // namespace
}  // namespace lepton
