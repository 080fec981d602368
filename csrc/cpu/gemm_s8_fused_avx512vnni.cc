// The 6x64 tile of gemm_s8_avx512vnni.cc, requantised in registers: with few products a result,
// storing the sums and reading them again would take as long as making them. Sums start from the
// bias. Panels of up to 32 columns take twelve rows at once. Four registers become 64 bytes at
// once: a row of 64 columns, two of 32 or four of 16. The limit is the two vector ports: for k = 16
// the tile's 96 vpdpbusd take 48 cycles and its bytes 80.
#include <immintrin.h>

#include "cpu/gemm_s8_vnni512.h"
#include "cpu/requantize_avx512.h"
#include "ops/gemm_s8_fused.h"

namespace lepton {
namespace {

inline __mmask16 mask_of(size_t n, size_t v) {
  const size_t left = n - v * kNv;
  return static_cast<__mmask16>(left >= kNv ? 0xffff : (1u << left) - 1);
}

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

// Sums in units of the result, with the residual where kAdds.
template <bool kAdds, size_t kRows, size_t kVectors>
struct Scaled {
  const GemmS8FusedParams& params;
  const __m512i (&sum_i32x16)[kRows][kVectors];
  const __m512 (&scale_f32x16)[kVectors];
  const __m512 r_scale_f32x16 = _mm512_set1_ps(params.r_scale);
  const __m512 offset_f32x16 =
      _mm512_set1_ps(static_cast<float>(-params.r_zero_point) * params.r_scale);

  // What lies beyond the tile is its last row or register again.
  __attribute__((always_inline)) __m512 operator()(size_t i, size_t v) const {
    i = i < kRows ? i : kRows - 1, v = v < kVectors ? v : kVectors - 1;
    const __m512 sum_f32x16 = _mm512_cvtepi32_ps(sum_i32x16[i][v]);
    if constexpr (kAdds)
      return _mm512_fmadd_ps(residual(i, v), r_scale_f32x16,
                             _mm512_fmadd_ps(sum_f32x16, scale_f32x16[v], offset_f32x16));
    else
      return _mm512_mul_ps(sum_f32x16, scale_f32x16[v]);
  }

 private:
  __attribute__((always_inline)) __m512 residual(size_t i, size_t v) const {
    const __m128i r_i8x16 = _mm_maskz_loadu_epi8(
        mask_of(params.n, v), params.residual + i * params.residual_stride + v * kNv);
    return _mm512_cvtepi32_ps(params.r_signed ? _mm512_cvtepi8_epi32(r_i8x16)
                                              : _mm512_cvtepu8_epi32(r_i8x16));
  }
};

template <bool kAdds, size_t kRows, size_t kVectors>
inline void finish(const GemmS8FusedParams& params, const __m512i (&sum)[kRows][kVectors]) {
  __m512 scale_f32x16[kVectors];
#pragma GCC unroll 4
  for (size_t v = 0; v < kVectors; ++v)
    scale_f32x16[v] = _mm512_maskz_loadu_ps(mask_of(params.n, v), params.scale + v * kNv);
  const Scaled<kAdds, kRows, kVectors> scaled{params, sum, scale_f32x16};
  const Bytes bytes(params.zero_point, params.lo, params.hi);
  constexpr size_t kTogether = kVectors >= 3 ? 1 : 4 / kVectors;  // rows
  constexpr size_t kBytes = 64 / kTogether;                       // of each of them
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; i += kTogether) {
    __m512 v_f32x16[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k)
      v_f32x16[k] =
          scaled(i + (kTogether == 1 ? 0 : k / kVectors), kTogether == 1 ? k : k % kVectors);
    const __m512i bytes_i8x64 = bytes(v_f32x16);
    uint8_t* const dst = params.dst + i * params.dst_stride;
    store<kBytes, 0>(dst, params.n, bytes_i8x64);
    if constexpr (kTogether > 1)
      if (i + 1 < kRows) store<kBytes, 1>(dst + params.dst_stride, params.n, bytes_i8x64);
    if constexpr (kTogether > 2) {
      if (i + 2 < kRows) store<kBytes, 2>(dst + 2 * params.dst_stride, params.n, bytes_i8x64);
      if (i + 3 < kRows) store<kBytes, 3>(dst + 3 * params.dst_stride, params.n, bytes_i8x64);
    }
  }
}

template <size_t kRows, size_t kVectors>
void tile(const GemmS8FusedParams& shared) {
  const GemmS8FusedParams params = shared;  // stores of bytes may alias what is not local
  __m512i sum[kRows][kVectors];
#pragma GCC unroll 4
  for (size_t v = 0; v < kVectors; ++v) {
    __m512i bias_i32x16 = _mm512_setzero_si512();
    if (params.bias != nullptr)
      bias_i32x16 = _mm512_maskz_loadu_epi32(mask_of(params.n, v), params.bias + v * kNv);
#pragma GCC unroll 12
    for (size_t i = 0; i < kRows; ++i) sum[i][v] = bias_i32x16;
  }
  const uint8_t* lhs = params.lhs;
  const size_t stride = params.lhs_stride;
  const int8_t* rhs = params.rhs;
  for (size_t p = params.k; p > 0; p -= kKr, lhs += kKr, rhs += kVectors * kNv * kKr)
    step([&](size_t i) { return lhs + i * stride; }, rhs, sum);
  if (params.residual != nullptr)
    finish<true>(params, sum);
  else
    finish<false>(params, sum);
}

template <size_t kVectors>
void rows(const GemmS8FusedParams& params) {
  switch (params.m) {
    case 1: return tile<1, kVectors>(params);
    case 2: return tile<2, kVectors>(params);
    case 3: return tile<3, kVectors>(params);
    case 4: return tile<4, kVectors>(params);
    case 5: return tile<5, kVectors>(params);
    default: return tile<6, kVectors>(params);
  }
}

// Twice as many rows: a few sums would wait for the latency of vpdpbusd.
template <size_t kVectors>
void narrow_rows(const GemmS8FusedParams& params) {
  switch (params.m) {
    case 7: return tile<7, kVectors>(params);
    case 8: return tile<8, kVectors>(params);
    case 9: return tile<9, kVectors>(params);
    case 10: return tile<10, kVectors>(params);
    case 11: return tile<11, kVectors>(params);
    case 12: return tile<12, kVectors>(params);
    default: return rows<kVectors>(params);
  }
}

}  // namespace

void gemm_s8_fused_6x64c4_avx512vnni(const GemmS8FusedParams& params) {
  switch (params.width / kNv) {
    case 1: return narrow_rows<1>(params);
    case 2: return narrow_rows<2>(params);
    case 3: return rows<3>(params);
    default: return rows<4>(params);
  }
}

}  // namespace lepton
