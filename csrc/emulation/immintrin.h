// Stands in front of the compiler's header where kernels for AVX-512 and AMX are compiled for
// machines with AVX2 only (LEPTON_EMULATE): the intrinsics of AVX-512 from SIMDe, those it lacks
// from here, the tiles of AMX from their model. For tests; nothing in it is fast.
#pragma once

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
//
#include <cstddef>
#include <cstdint>

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_tile_loadconfig  // these are functions of the compiler's
#define _tile_release emulated_tile_release
#include "emulation/amx_tiles.h"

namespace lepton {
namespace {

// A vector as an array.
template <typename Element, typename Vector>
struct Lanes {
  static constexpr size_t kCount = sizeof(Vector) / sizeof(Element);
  alignas(Vector) Element at[kCount] = {};
  Lanes() = default;
  explicit Lanes(const Vector& vector) { std::memcpy(at, &vector, sizeof vector); }
  Vector vector() const {
    Vector out;
    std::memcpy(&out, at, sizeof out);
    return out;
  }
};

// Elements whose bit of the mask is clear are neither read nor written, and load as zero.
template <typename Element, typename Vector>
inline Vector masked_load(uint64_t mask, const void* from) {
  Lanes<Element, Vector> out;
  for (size_t i = 0; i < out.kCount; ++i)
    if ((mask >> i & 1) != 0)
      std::memcpy(&out.at[i], static_cast<const Element*>(from) + i, sizeof(Element));
  return out.vector();
}

template <typename Element, typename Vector>
inline void masked_store(void* to, uint64_t mask, const Vector& vector) {
  const Lanes<Element, Vector> from(vector);
  for (size_t i = 0; i < from.kCount; ++i)
    if ((mask >> i & 1) != 0)
      std::memcpy(static_cast<Element*>(to) + i, &from.at[i], sizeof(Element));
}

// Lane by lane to another type, integers modulo its range.
template <typename From, typename To, typename Out, typename In>
inline Out convert(const In& in) {
  const Lanes<From, In> from(in);
  Lanes<To, Out> to;
  static_assert(from.kCount == to.kCount, "as many lanes in as out");
  for (size_t i = 0; i < to.kCount; ++i) to.at[i] = static_cast<To>(from.at[i]);
  return to.vector();
}

// To the nearest, ties to even, as AVX2 does it.
inline __m512i nearest_i32(const __m512& x) {
  const Lanes<__m256, __m512> from(x);
  Lanes<__m256i, __m512i> to;
  for (size_t i = 0; i < 2; ++i) to.at[i] = _mm256_cvtps_epi32(from.at[i]);
  return to.vector();
}

// The upper half onto the lower one until one lane is left: the order in which compilers do it.
template <typename Element, typename Vector, typename Operation>
inline Element reduce(const Vector& vector, Operation operation) {
  Lanes<Element, Vector> x(vector);
  for (size_t half = x.kCount / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) x.at[i] = operation(x.at[i], x.at[i + half]);
  return x.at[0];
}
constexpr auto kSum = [](auto a, auto b) { return a + b; };
constexpr auto kLeast = [](auto a, auto b) { return a < b ? a : b; };
constexpr auto kMost = [](auto a, auto b) { return a > b ? a : b; };

// vdpbf16ps: of each pair of lanes the odd products first, unfused; subnormal numbers count as
// zero.
template <typename Pairs>
inline __m512 dot_bf16(const __m512& sum, const Pairs& a, const Pairs& b) {
  Lanes<float, __m512> out(sum);
  const Lanes<uint8_t, Pairs> left(a), right(b);
  for (size_t i = 0; i < out.kCount; ++i)
    for (size_t at : {4 * i + 2, 4 * i})
      out.at[i] = flushed(flushed(out.at[i]) +
                          flushed(bfloat16_at(left.at + at) * bfloat16_at(right.at + at)));
  return out.vector();
}

// A bit for every pair of lanes of which `holds` is true.
template <typename Element, typename Vector, typename Predicate>
inline uint64_t mask_of(const Vector& a, const Vector& b, Predicate holds) {
  const Lanes<Element, Vector> left(a), right(b);
  uint64_t mask = 0;
  for (size_t i = 0; i < left.kCount; ++i) mask |= uint64_t{holds(left.at[i], right.at[i])} << i;
  return mask;
}
constexpr auto kShareBits = [](auto a, auto b) { return (a & b) != 0; };
constexpr auto kLess = [](auto a, auto b) { return a < b; };

}  // namespace
}  // namespace lepton

// SIMDe 0.7.4 names its masked form so.
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b) (simde_mm512_madd_epi16(a, b))

// Its own rounds subnormal numbers as any others.
#undef _mm512_dpbf16_ps
#define _mm512_dpbf16_ps(sum, a, b) (dot_bf16(sum, a, b))

// Missing from SIMDe 0.7.4.
#define _mm_maskz_loadu_epi8(mask, from) (masked_load<int8_t, __m128i>(mask, from))
#define _mm256_maskz_loadu_epi8(mask, from) (masked_load<int8_t, __m256i>(mask, from))
#define _mm512_maskz_loadu_epi8(mask, from) (masked_load<int8_t, __m512i>(mask, from))
#define _mm_maskz_loadu_epi16(mask, from) (masked_load<int16_t, __m128i>(mask, from))
#define _mm256_maskz_loadu_epi16(mask, from) (masked_load<int16_t, __m256i>(mask, from))
#define _mm512_maskz_loadu_epi16(mask, from) (masked_load<int16_t, __m512i>(mask, from))
#define _mm512_maskz_loadu_epi32(mask, from) (masked_load<int32_t, __m512i>(mask, from))
#define _mm512_maskz_loadu_ps(mask, from) (masked_load<float, __m512>(mask, from))
#define _mm_mask_storeu_epi8(to, mask, x) (masked_store<int8_t>(to, mask, x))
#define _mm256_mask_storeu_epi8(to, mask, x) (masked_store<int8_t>(to, mask, x))
#define _mm512_mask_storeu_epi8(to, mask, x) (masked_store<int8_t>(to, mask, x))
#define _mm_mask_storeu_epi16(to, mask, x) (masked_store<int16_t>(to, mask, x))
#define _mm256_mask_storeu_epi16(to, mask, x) (masked_store<int16_t>(to, mask, x))
#define _mm512_mask_storeu_epi16(to, mask, x) (masked_store<int16_t>(to, mask, x))
#define _mm512_mask_storeu_epi32(to, mask, x) (masked_store<int32_t>(to, mask, x))
#define _mm512_mask_storeu_ps(to, mask, x) (masked_store<float>(to, mask, x))
#define _mm512_cvtepi8_epi32(x) (convert<int8_t, int32_t, __m512i>(x))
#define _mm512_cvtepu8_epi32(x) (convert<uint8_t, int32_t, __m512i>(x))
#define _mm512_cvtepi16_epi32(x) (convert<int16_t, int32_t, __m512i>(x))
#define _mm512_cvtepu16_epi32(x) (convert<uint16_t, int32_t, __m512i>(x))
#define _mm512_cvtepi32_epi8(x) (convert<int32_t, int8_t, __m128i>(x))
#define _mm512_cvtepi32_epi16(x) (convert<int32_t, int16_t, __m256i>(x))
#define _mm512_cvtepi32_ps(x) (convert<int32_t, float, __m512>(x))
#define _mm512_cvtps_epi32(x) (nearest_i32(x))
#define _mm512_maskz_cvtps_epi32(mask, x) (_mm512_maskz_mov_epi32(mask, nearest_i32(x)))
#define _mm512_cvtss_f32(x) (Lanes<float, __m512>(x).at[0])
#define _mm512_reduce_add_ps(x) (reduce<float, __m512>(x, kSum))
#define _mm512_reduce_max_ps(x) (reduce<float, __m512>(x, kMost))
#define _mm512_reduce_min_ps(x) (reduce<float, __m512>(x, kLeast))
#define _mm512_reduce_add_epi32(x) (static_cast<int>(reduce<uint32_t, __m512i>(x, kSum)))
#define _mm512_reduce_max_epi32(x) (reduce<int32_t, __m512i>(x, kMost))
#define _mm512_reduce_min_epi32(x) (reduce<int32_t, __m512i>(x, kLeast))
#define _mm512_reduce_max_epu32(x) (reduce<uint32_t, __m512i>(x, kMost))
#define _mm_test_epi8_mask(a, b) (mask_of<uint8_t, __m128i>(a, b, kShareBits))
#define _mm512_cmplt_epi32_mask(a, b) (mask_of<int32_t, __m512i>(a, b, kLess))

// Empty statements that keep a value in a register of 512 bits, which is not there: dropped.
#define asm
#define volatile(...)
