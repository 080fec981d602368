// Eight channels abreast; everything else is winograd_transforms.h, which also says what limits it.
#include <immintrin.h>

#include "cpu/math_avx2.h"
#include "cpu/winograd_transforms.h"

namespace lepton {
namespace {

struct F32x8 {
  static constexpr size_t lanes = 8;
  __m256 v;

  static F32x8 set(float x) { return {_mm256_set1_ps(x)}; }
  static F32x8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static F32x8 load(const float* p, size_t n) { return {load_tail(p, n)}; }
  static void store(float* p, F32x8 x) { _mm256_storeu_ps(p, x.v); }
  static void store(float* p, F32x8 x, size_t n) { store_tail(p, x.v, n); }
};

inline F32x8 operator+(F32x8 a, F32x8 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32x8 operator-(F32x8 a, F32x8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32x8 operator*(F32x8 a, F32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32x8 fma(F32x8 a, F32x8 b, F32x8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

}  // namespace

WinogradKernels winograd_f32_avx2() { return {winograd_input<F32x8>, winograd_output<F32x8>}; }

}  // namespace lepton
