// Eight columns a step: add bias, convert, scale, clamp while still float (the bounds are small
// integers, so this commutes with rounding and keeps the conversion in range), convert with the
// rounding mode's ties-to-even, add the zero point, narrow. The last columns of a row go through
// masked loads and a small buffer, so nothing beyond n is touched. Multiplications and additions
// are separate: the results are the scalar kernel's, bit for bit.
#include <immintrin.h>

#include "ops/epilogue.h"

namespace lepton {
namespace {

// The first `count` of eight lanes.
inline __m256i mask_of(size_t count) {
  const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane_i32x8);
}

// Loads and stores of eight columns, and of the first `count` columns.
struct Whole {
  __m256i load(const int32_t* p) const {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  __m256 load(const float* p) const { return _mm256_loadu_ps(p); }
  __m128i load_bytes(const uint8_t* p) const {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
  void store(int32_t* p, __m256i v) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  void store(float* p, __m256 v) const { _mm256_storeu_ps(p, v); }
  void store_bytes(uint8_t* p, __m128i v) const {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), v);
  }
};

struct Tail {
  size_t count;
  __m256i mask;
  __m256i load(const int32_t* p) const { return _mm256_maskload_epi32(p, mask); }
  __m256 load(const float* p) const { return _mm256_maskload_ps(p, mask); }
  __m128i load_bytes(const uint8_t* p) const {
    uint64_t bytes = 0;
    for (size_t j = 0; j < count; ++j) bytes |= uint64_t{p[j]} << (8 * j);
    return _mm_cvtsi64_si128(static_cast<long long>(bytes));
  }
  void store(int32_t* p, __m256i v) const { _mm256_maskstore_epi32(p, mask, v); }
  void store(float* p, __m256 v) const { _mm256_maskstore_ps(p, mask, v); }
  void store_bytes(uint8_t* p, __m128i v) const {
    const uint64_t bytes = static_cast<uint64_t>(_mm_cvtsi128_si64(v));
    for (size_t j = 0; j < count; ++j) p[j] = static_cast<uint8_t>(bytes >> (8 * j));
  }
};

// Calls body(access, i, j) for every group of at most eight columns of every row.
template <typename Body>
inline void for_each_group(size_t m, size_t n, const Body& body) {
  const size_t whole = n & ~size_t{7};
  const Tail tail = {n - whole, mask_of(n - whole)};
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < whole; j += 8) body(Whole{}, i, j);
    if (whole != n) body(tail, i, whole);
  }
}

template <typename Access>
inline __m256i biased(const EpilogueS8Params& params, Access access, size_t i, size_t j) {
  const __m256i acc_i32x8 = access.load(params.acc + i * params.acc_stride + j);
  if (params.bias == nullptr) return acc_i32x8;
  return _mm256_add_epi32(acc_i32x8, access.load(params.bias + j));
}

template <typename Access>
inline __m256 scaled(const EpilogueS8Params& params, Access access, size_t i, size_t j) {
  return _mm256_mul_ps(_mm256_cvtepi32_ps(biased(params, access, i, j)),
                       access.load(params.scale + j));
}

// clamp(rint(v) + zero_point, lo, hi).
struct Quantizer {
  Quantizer(int32_t zero_point, int32_t lo, int32_t hi)
      : least_f32x8(_mm256_set1_ps(static_cast<float>(lo - zero_point))),
        most_f32x8(_mm256_set1_ps(static_cast<float>(hi - zero_point))),
        zero_point_i32x8(_mm256_set1_epi32(zero_point)) {}

  // rint(v) clamped, still without the zero point. NaN: max returns its second operand, lo.
  __m256i centred(__m256 v) const {
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, least_f32x8), most_f32x8));
  }
  __m256i operator()(__m256 v) const { return _mm256_add_epi32(centred(v), zero_point_i32x8); }

  __m256 least_f32x8, most_f32x8;
  __m256i zero_point_i32x8;
};

// The low byte of each lane: the values are already in range, u8 and s8 alike.
inline __m128i narrow(__m256i v) {
  const __m256i low_bytes_i8x32 =
      _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                       0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i packed_i8x32 = _mm256_shuffle_epi8(v, low_bytes_i8x32);
  return _mm_unpacklo_epi32(_mm256_castsi256_si128(packed_i8x32),
                            _mm256_extracti128_si256(packed_i8x32, 1));
}

}  // namespace

void epilogue_s8_requantize_avx2(const EpilogueS8Params& params) {
  const Requantize& r = params.requantize;
  const Quantizer quantizer(r.zero_point, r.lo, r.hi);
  uint8_t* const dst = static_cast<uint8_t*>(params.dst);
  for_each_group(params.m, params.n, [&](auto access, size_t i, size_t j) {
    access.store_bytes(dst + i * params.dst_stride + j,
                       narrow(quantizer(scaled(params, access, i, j))));
  });
}

void epilogue_s8_requantize_add_avx2(const EpilogueS8Params& params) {
  const Requantize& r = params.requantize;
  const Quantizer inner(r.zero_point, r.lo, r.hi), outer(r.out_zero_point, r.out_lo, r.out_hi);
  const __m256 q_scale_f32x8 = _mm256_set1_ps(r.q_scale), r_scale_f32x8 = _mm256_set1_ps(r.r_scale);
  const __m256 out_scale_f32x8 = _mm256_set1_ps(r.out_scale);
  const __m256i r_zero_point_i32x8 = _mm256_set1_epi32(r.r_zero_point);
  const uint8_t* const residual = static_cast<const uint8_t*>(params.residual);
  uint8_t* const dst = static_cast<uint8_t*>(params.dst);
  for_each_group(params.m, params.n, [&](auto access, size_t i, size_t j) {
    const __m128i bytes_i8x16 = access.load_bytes(residual + i * params.residual_stride + j);
    const __m256i other_i32x8 =
        params.r_signed ? _mm256_cvtepi8_epi32(bytes_i8x16) : _mm256_cvtepu8_epi32(bytes_i8x16);
    const __m256 x_f32x8 = _mm256_mul_ps(
        _mm256_cvtepi32_ps(inner.centred(scaled(params, access, i, j))), q_scale_f32x8);
    const __m256 y_f32x8 = _mm256_mul_ps(
        _mm256_cvtepi32_ps(_mm256_sub_epi32(other_i32x8, r_zero_point_i32x8)), r_scale_f32x8);
    const __m256 v_f32x8 = _mm256_div_ps(_mm256_add_ps(x_f32x8, y_f32x8), out_scale_f32x8);
    access.store_bytes(dst + i * params.dst_stride + j, narrow(outer(v_f32x8)));
  });
}

void epilogue_s8_f32_avx2(const EpilogueS8Params& params) {
  const __m256 min_f32x8 = _mm256_set1_ps(params.min), max_f32x8 = _mm256_set1_ps(params.max);
  float* const dst = static_cast<float*>(params.dst);
  for_each_group(params.m, params.n, [&](auto access, size_t i, size_t j) {
    // Constant first: max and min then pass a NaN through.
    const __m256 y_f32x8 = _mm256_max_ps(min_f32x8, scaled(params, access, i, j));
    access.store(dst + i * params.dst_stride + j, _mm256_min_ps(max_f32x8, y_f32x8));
  });
}

void epilogue_s8_s32_avx2(const EpilogueS8Params& params) {
  int32_t* const dst = static_cast<int32_t*>(params.dst);
  for_each_group(params.m, params.n, [&](auto access, size_t i, size_t j) {
    access.store(dst + i * params.dst_stride + j, biased(params, access, i, j));
  });
}

}  // namespace lepton
