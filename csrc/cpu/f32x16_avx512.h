// Sixteen floats as a value, for kernels written once for any width (gemm_f32_tile.h,
// winograd_transforms.h, depthwise_rows.h …). Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lepton {
namespace {

struct F32x16 {
  static constexpr size_t lanes = 16;
  __m512 v;

  // Keeps the value in its register at this point: without it GCC hoists every broadcast of a step
  // above the arithmetic and spills accumulators, which halves the rate of products.
  void pin() { asm volatile("" : "+v"(v)); }

  static __mmask16 first(size_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static F32x16 set(float x) { return {_mm512_set1_ps(x)}; }
  static F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static F32x16 load(const float* p, size_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
  // The lower and the upper halves of 32-bit lanes, bfloat16 both, as floats.
  static F32x16 lower(const uint16_t* pairs) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(pairs), 16))};
  }
  static F32x16 upper(const uint16_t* pairs) {
    const __m512i upper_u32x16 = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
    return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(pairs), upper_u32x16))};
  }
  static void store(float* p, F32x16 x) { _mm512_storeu_ps(p, x.v); }
  static void store(float* p, F32x16 x, size_t n) { _mm512_mask_storeu_ps(p, first(n), x.v); }
};

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// The instructions return their second operand when either is NaN, so a NaN in x passes through.
inline F32x16 clamp(F32x16 x, F32x16 min, F32x16 max) {
  return {_mm512_min_ps(max.v, _mm512_max_ps(min.v, x.v))};
}

}  // namespace
}  // namespace lepton
