// Eight floats as a value, for kernels written once for any width (gemm_f32_tile.h,
// winograd_transforms.h, depthwise_rows.h …). Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/math_avx2.h"

namespace lepton {
namespace {

struct F32x8 {
  static constexpr size_t lanes = 8;
  __m256 v;

  // Keeps the value in its register at this point: without it GCC hoists every broadcast of a step
  // above the arithmetic and spills accumulators, which halves the rate of products.
  void pin() { asm volatile("" : "+x"(v)); }

  static F32x8 set(float x) { return {_mm256_set1_ps(x)}; }
  static F32x8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static F32x8 load(const float* p, size_t n) { return {load_tail(p, n)}; }
  // The lower and the upper halves of 32-bit lanes, bfloat16 both, as floats.
  static F32x8 lower(const uint16_t* pairs) {
    return {_mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs)), 16))};
  }
  static F32x8 upper(const uint16_t* pairs) {
    const __m256i upper_u32x8 = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
    return {_mm256_castsi256_ps(_mm256_and_si256(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs)), upper_u32x8))};
  }
  static void store(float* p, F32x8 x) { _mm256_storeu_ps(p, x.v); }
  static void store(float* p, F32x8 x, size_t n) { store_tail(p, x.v, n); }
};

inline F32x8 operator+(F32x8 a, F32x8 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32x8 operator-(F32x8 a, F32x8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32x8 operator*(F32x8 a, F32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32x8 fma(F32x8 a, F32x8 b, F32x8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
// The instructions return their second operand when either is NaN, so a NaN in x passes through.
inline F32x8 clamp(F32x8 x, F32x8 min, F32x8 max) {
  return {_mm256_min_ps(max.v, _mm256_max_ps(min.v, x.v))};
}

}  // namespace
}  // namespace lepton
