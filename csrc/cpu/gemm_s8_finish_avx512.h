// What follows the products of gemm_s8_fused_avx512vnni.cc: sums to bytes, with a residual or
// without. Included by that file only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/requantize_avx512.h"
#include "ops/gemm_s8_fused.h"

namespace lepton {
namespace {

enum class Added { kNothing, kU8, kS8 };

inline __mmask16 mask_of(size_t n, size_t v) {
  const size_t from = v * 16;
  const size_t count = n <= from ? 0 : n - from;
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1);
}

// What belongs to a panel. Bytes with a sign are made without one, 128 higher, and flipped.
struct Finish {
  explicit Finish(const GemmS8FusedParams& params)
      : flip(params.lo < 0 ? 0x80 : 0),
        zero_point(params.zero_point + flip),
        lo(params.lo + flip),
        hi(params.hi + flip),
        r_scale(params.r_scale),
        r_offset(static_cast<float>(-params.r_zero_point) * params.r_scale) {
    for (size_t v = 0; v < params.width / 16; ++v) {
      const __mmask16 mask = mask_of(params.n, v);
      __m512i bias_i32x16 = _mm512_setzero_si512();
      if (params.bias != nullptr)
        bias_i32x16 = _mm512_maskz_loadu_epi32(mask, params.bias + v * 16);
      const __m512 scale_f32x16 = _mm512_maskz_loadu_ps(mask, params.scale + v * 16);
      _mm512_store_si512(bias + v * 16, bias_i32x16);
      _mm512_store_ps(scale + v * 16, scale_f32x16);
      // NaN is larger.
      const __mmask16 within =
          _mm512_cmp_ps_mask(_mm512_abs_ps(scale_f32x16), _mm512_set1_ps(0.25f), _CMP_LE_OQ);
      scales_are_small &= within == 0xffff;
    }
  }

  // Whether scaled sums, with their residual, stay within 2^30, and bounds are those of a byte.
  bool is_plain(const GemmS8FusedParams& params) const {
    const bool adds_little = params.residual == nullptr || (r_scale >= 0.f && r_scale <= 0x1p20f);
    return scales_are_small && adds_little && lo == 0 && hi == 255;
  }

  int32_t flip, zero_point, lo, hi;
  float r_scale, r_offset;
  bool scales_are_small = true;
  alignas(64) int32_t bias[64];
  alignas(64) float scale[64];
};

// The first n bytes of part kPart of a register, which consists of parts of kBytes.
template <size_t kBytes, int kPart>
inline void store(uint8_t* dst, size_t n, __m512i bytes_i8x64) {
  const __mmask64 mask = ~__mmask64{0} >> (64 - n);
  if constexpr (kBytes == 16)
    _mm_mask_storeu_epi8(dst, static_cast<__mmask16>(mask),
                         _mm512_extracti32x4_epi32(bytes_i8x64, kPart));
  else if constexpr (kBytes == 32)
    _mm256_mask_storeu_epi8(dst, static_cast<__mmask32>(mask),
                            _mm512_extracti64x4_epi64(bytes_i8x64, kPart));
  else
    _mm512_mask_storeu_epi8(dst, mask, bytes_i8x64);
}

// Sums in units of the result, with their residuals. Copies what it needs: stores of bytes may
// alias what is not local.
class Scaled {
 public:
  Scaled(const GemmS8FusedParams& params, const Finish& finish, size_t row)
      : scale_(finish.scale),
        residual_(params.residual),
        stride_(params.residual_stride),
        r_signed_(params.r_signed),
        r_scale_f32x16_(_mm512_set1_ps(finish.r_scale)),
        r_offset_f32x16_(_mm512_set1_ps(finish.r_offset)) {
    if (residual_ != nullptr) residual_ += row * stride_;
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; ++v) masks_[v] = mask_of(params.n, v);
  }

  // Register v of the i-th row from `row` on.
  template <Added kAdded>
  __attribute__((always_inline)) __m512 get(__m512i sum_i32x16, size_t i, size_t v) const {
    const __m512 sum_f32x16 = _mm512_cvtepi32_ps(sum_i32x16);
    const __m512 scale_f32x16 = _mm512_load_ps(scale_ + v * 16);
    if constexpr (kAdded == Added::kNothing) {
      return _mm512_mul_ps(sum_f32x16, scale_f32x16);
    } else {
      const __m128i r_i8x16 = _mm_maskz_loadu_epi8(masks_[v], residual_ + i * stride_ + v * 16);
      const __m512i r_i32x16 =
          kAdded == Added::kS8 ? _mm512_cvtepi8_epi32(r_i8x16) : _mm512_cvtepu8_epi32(r_i8x16);
      return _mm512_fmadd_ps(_mm512_cvtepi32_ps(r_i32x16), r_scale_f32x16_,
                             _mm512_fmadd_ps(sum_f32x16, scale_f32x16, r_offset_f32x16_));
    }
  }
  __m512 get(__m512i sum_i32x16, size_t i, size_t v) const {
    if (residual_ == nullptr) return get<Added::kNothing>(sum_i32x16, i, v);
    return r_signed_ ? get<Added::kS8>(sum_i32x16, i, v) : get<Added::kU8>(sum_i32x16, i, v);
  }

 private:
  const float* scale_;
  const uint8_t* residual_;
  size_t stride_;
  bool r_signed_;
  __mmask16 masks_[4];
  const __m512 r_scale_f32x16_, r_offset_f32x16_;
};

// A tile whose results are plain (Finish::is_plain): packing saturates as far as they need it.
template <Added kAdded, bool kBiased, size_t kRows, size_t kVectors>
__attribute__((always_inline)) inline void finish_tile(const GemmS8FusedParams& params,
                                                       const Finish& finish, size_t row,
                                                       const __m512i (&sum)[kRows][kVectors]) {
  const Scaled scaled(params, finish, row);
  const size_t n = params.n, stride = params.dst_stride;
  uint8_t* dst = params.dst + row * stride;
  const __m512i zero_point_i16x32 = _mm512_set1_epi16(static_cast<int16_t>(finish.zero_point));
  const __m512i flip_i8x64 = _mm512_set1_epi8(static_cast<char>(finish.flip));
  // Packing works within 128 bits.
  const __m512i order_i32x16 =
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  constexpr size_t kTogether = kVectors >= 3 ? 1 : 4 / kVectors;  // rows
  constexpr size_t kBytes = 64 / kTogether;                       // of each of them
  const auto words = [&](size_t i, size_t k) __attribute__((always_inline)) {
    __m512i word_i32x16[2];
#pragma GCC unroll 2
    for (size_t of = 0; of < 2; ++of) {
      // What lies beyond three registers is the last one again.
      const size_t at = kTogether == 1 ? i : i + (k + of) / kVectors;
      const size_t v = kTogether > 1       ? (k + of) % kVectors
                       : k + of < kVectors ? k + of
                                           : kVectors - 1;
      word_i32x16[of] = _mm512_cvtps_epi32(scaled.get<kAdded>(sum[at][v], at, v));
    }
    const __m512i words_i16x32 = _mm512_packs_epi32(word_i32x16[0], word_i32x16[1]);
    return kBiased ? _mm512_adds_epi16(words_i16x32, zero_point_i16x32) : words_i16x32;
  };
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; i += kTogether) {
    __m512i bytes_i8x64 = _mm512_packus_epi16(words(i, 0), words(i, 2));
    bytes_i8x64 = _mm512_permutexvar_epi32(order_i32x16, bytes_i8x64);
    if (kBiased) bytes_i8x64 = _mm512_xor_si512(bytes_i8x64, flip_i8x64);
    store<kBytes, 0>(dst, n, bytes_i8x64);
    if constexpr (kTogether > 1) store<kBytes, 1>(dst + stride, n, bytes_i8x64);
    if constexpr (kTogether > 2) {
      store<kBytes, 2>(dst + 2 * stride, n, bytes_i8x64);
      store<kBytes, 3>(dst + 3 * stride, n, bytes_i8x64);
    }
    dst += kTogether * stride;
  }
}

// Any results, from memory: `count` rows of `vectors` registers of sums, 64-byte aligned.
__attribute__((noinline)) void finish_rows(const GemmS8FusedParams& params, const Finish& finish,
                                           const int32_t* acc, size_t vectors, size_t row,
                                           size_t count) {
  const Scaled scaled(params, finish, row);
  const Bytes<true> bytes(finish.zero_point, finish.lo, finish.hi);
  const __m512i flip_i8x64 = _mm512_set1_epi8(static_cast<char>(finish.flip));
  const size_t n = params.n, stride = params.dst_stride;
  uint8_t* dst = params.dst + row * stride;
  for (size_t i = 0; i < count; ++i, acc += vectors * 16, dst += stride) {
    __m512 v_f32x16[4] = {};
    for (size_t v = 0; v < vectors; ++v)
      v_f32x16[v] = scaled.get(_mm512_load_si512(acc + v * 16), i, v);
    store<64, 0>(dst, n, _mm512_xor_si512(bytes(v_f32x16), flip_i8x64));
  }
}

}  // namespace
}  // namespace lepton
