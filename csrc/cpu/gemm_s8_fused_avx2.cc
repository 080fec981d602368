// The 8x32 tile of gemm_s8_runs_avx2.cc, requantised in registers eight columns after eight: with
// few products a result, storing the sums and reading them again would show. Sums start from the
// bias; four rows become 32 bytes at once. The limit is the vector pipes: 58 instructions for the
// bytes of eight rows and columns, where a product of k = 16 takes 96.
#include <immintrin.h>

#include "cpu/gemm_s8_runs_avx2.h"
#include "cpu/requantize_avx2.h"
#include "ops/gemm_s8_fused.h"

namespace lepton {
namespace {

// The first `count` of eight lanes.
inline __m256i mask_of(size_t count) {
  const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane_i32x8);
}

// The first `count` of the lower eight bytes.
inline void store(uint8_t* dst, size_t count, __m128i bytes_i8x16) {
  if (count >= kStripColumns) return _mm_storel_epi64(reinterpret_cast<__m128i*>(dst), bytes_i8x16);
  const uint64_t bytes = static_cast<uint64_t>(_mm_cvtsi128_si64(bytes_i8x16));
  for (size_t j = 0; j < count; ++j) dst[j] = static_cast<uint8_t>(bytes >> (8 * j));
}

// Eight columns from j on of every row.
template <size_t kRows>
inline void finish(const GemmS8FusedParams& params, size_t j, const Bytes& bytes,
                   const __m256i (&sum)[kRows]) {
  const size_t count = params.n - j;
  const __m256 scale_f32x8 = _mm256_maskload_ps(params.scale + j, mask_of(count));
  const auto integers = [&](size_t i) {  // the last row again beyond it
    return rounded(_mm256_mul_ps(_mm256_cvtepi32_ps(sum[i < kRows ? i : kRows - 1]), scale_f32x8));
  };
#pragma GCC unroll 2
  for (size_t i = 0; i < kRows; i += 4) {
    const __m256i four_i8x32 =
        bytes(integers(i), integers(i + 1), integers(i + 2), integers(i + 3));
    const __m128i upper_i8x16 = _mm256_castsi256_si128(four_i8x32);
    const __m128i lower_i8x16 = _mm256_extracti128_si256(four_i8x32, 1);
    uint8_t* const dst = params.dst + i * params.dst_stride + j;
    store(dst, count, upper_i8x16);
    if (i + 1 < kRows)
      store(dst + params.dst_stride, count, _mm_unpackhi_epi64(upper_i8x16, upper_i8x16));
    if (i + 2 < kRows) store(dst + 2 * params.dst_stride, count, lower_i8x16);
    if (i + 3 < kRows)
      store(dst + 3 * params.dst_stride, count, _mm_unpackhi_epi64(lower_i8x16, lower_i8x16));
  }
}

// The next `count` cache lines into L2.
inline void fetch(GemmS8FusedParams& params, size_t count) {
  count = count < params.next_lines ? count : params.next_lines;
  for (size_t i = 0; i < count; ++i, params.next += 64)
    _mm_prefetch(reinterpret_cast<const char*>(params.next), _MM_HINT_T1);
  params.next_lines -= count;
}

template <size_t kRows>
void tile(const GemmS8FusedParams& shared) {
  const GemmS8FusedParams params = shared;  // stores of bytes may alias what is not local
  __m256i ones_i16x16 = _mm256_set1_epi16(1);
  pin(ones_i16x16);
  const Rows rows(params.lhs_stride);
  const Bytes bytes(params.zero_point, params.lo, params.hi);
  const int8_t* rhs = params.rhs;
  for (size_t j = 0; j < params.n; j += kStripColumns) {
    __m256i bias_i32x8 = _mm256_setzero_si256();
    if (params.bias != nullptr)
      bias_i32x8 = _mm256_maskload_epi32(params.bias + j, mask_of(params.n - j));
    __m256i sum[kRows];
#pragma GCC unroll 8
    for (size_t i = 0; i < kRows; ++i) sum[i] = bias_i32x8;
    rhs = add_strip(rhs, params.lhs, rows, ones_i16x16, sum);
    finish(params, j, bytes, sum);
  }
}

void rows(const GemmS8FusedParams& params) {
  switch (params.m) {
    case 1: return tile<1>(params);
    case 2: return tile<2>(params);
    case 3: return tile<3>(params);
    case 4: return tile<4>(params);
    case 5: return tile<5>(params);
    case 6: return tile<6>(params);
    case 7: return tile<7>(params);
    default: return tile<8>(params);
  }
}

}  // namespace

void gemm_s8_fused_8x32c4_avx2(const GemmS8FusedParams& shared) {
  constexpr size_t kMr = 8;
  GemmS8FusedParams params = shared;
  const size_t tiles = (params.m + kMr - 1) / kMr;
  const size_t lines = (params.next_lines + tiles - 1) / tiles;
  for (size_t left = params.m; left > 0; left -= params.m) {
    fetch(params, lines);
    params.m = left < kMr ? left : kMr;
    rows(params);
    params.lhs += params.m * params.lhs_stride;
    params.dst += params.m * params.dst_stride;
  }
}

}  // namespace lepton
