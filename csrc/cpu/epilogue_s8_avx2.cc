// Sixteen columns at a time, down the rows: their bias and scale stay in registers, and each row's
// sixteen accumulators become sixteen bytes or two registers of floats. Add bias, convert, scale,
// cut off what int32 cannot hold, convert with the rounding mode's ties-to-even; for bytes, two
// rows go together through two saturating packs, between which the zero point is added, and then
// through clamps of bytes. What is left of n goes eight columns a step, the last of them through
// masked loads and a small buffer, so nothing beyond n is touched. Multiplications and additions
// are fused only where the contract says so: the results are the scalar kernel's, bit for bit.
// Bound by arithmetic: about a dozen instructions for eight columns.
#include <immintrin.h>

#include "cpu/divide_avx2.h"
#include "cpu/requantize_avx2.h"
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

// Eight columns from j on, or the first of them: what belongs to columns stays in registers while
// rows pass by.
template <typename Access>
struct Columns {
  Columns(const EpilogueS8Params& of, Access columns, size_t first)
      : params(of), access(columns), j(first) {
    bias_i32x8 = load(params.bias);
    column_sum_i32x8 = load(params.column_sum);
    scale_f32x8 = load(params.scale);
    float_bias_f32x8 = load(params.float_bias);
  }
  __m256i load(const int32_t* p) const {
    return p == nullptr ? _mm256_setzero_si256() : access.load(p + j);
  }
  __m256 load(const float* p) const {
    return p == nullptr ? _mm256_setzero_ps() : access.load(p + j);
  }
  __m256i sum(size_t i) const {
    const __m256i acc_i32x8 = load(params.acc + i * params.acc_stride);
    const __m256i sum_i32x8 = _mm256_add_epi32(acc_i32x8, bias_i32x8);
    if (params.row_zero_point == nullptr) return sum_i32x8;
    const __m256i zero_point_i32x8 = _mm256_set1_epi32(params.row_zero_point[i]);
    return _mm256_sub_epi32(sum_i32x8, _mm256_mullo_epi32(zero_point_i32x8, column_sum_i32x8));
  }
  __m256 converted(size_t i) const { return _mm256_cvtepi32_ps(sum(i)); }
  __m256 scaled(size_t i) const { return _mm256_mul_ps(converted(i), scale_f32x8); }

  const EpilogueS8Params& params;
  Access access;
  size_t j;
  __m256i bias_i32x8, column_sum_i32x8;
  __m256 scale_f32x8, float_bias_f32x8;
};

// Calls body(columns) for every group of at most eight columns from `first` on.
template <typename Body>
inline void for_each_eight(const EpilogueS8Params& params, size_t first, const Body& body) {
  size_t j = first;
  for (; j + 8 <= params.n; j += 8) body(Columns<Whole>(params, Whole{}, j));
  const size_t rest = params.n - j;
  if (rest != 0) body(Columns<Tail>(params, Tail{rest, mask_of(rest)}, j));
}

// The quantised addition of a residual: from q's float to the sum in units of the output.
template <typename Divide>
struct Adder {
  explicit Adder(const EpilogueS8Params& params)
      : least_f32x8(_mm256_set1_ps(
            static_cast<float>(params.requantize.lo - params.requantize.zero_point))),
        most_f32x8(_mm256_set1_ps(
            static_cast<float>(params.requantize.hi - params.requantize.zero_point))),
        q_scale_f32x8(_mm256_set1_ps(params.requantize.q_scale)),
        r_scale_f32x8(_mm256_set1_ps(params.requantize.r_scale)),
        divide(params.requantize.out_scale),
        r_zero_point_i32x8(_mm256_set1_epi32(params.requantize.r_zero_point)),
        r_signed(params.r_signed) {}

  // v: q before rounding; residual: its eight bytes. NaN: max returns its second operand, lo.
  __m256 operator()(__m256 v, __m128i residual) const {
    const __m256i r_i32x8 =
        r_signed ? _mm256_cvtepi8_epi32(residual) : _mm256_cvtepu8_epi32(residual);
    const __m256i q_i32x8 =
        _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, least_f32x8), most_f32x8));
    const __m256 x_f32x8 = _mm256_mul_ps(_mm256_cvtepi32_ps(q_i32x8), q_scale_f32x8);
    const __m256 y_f32x8 = _mm256_mul_ps(
        _mm256_cvtepi32_ps(_mm256_sub_epi32(r_i32x8, r_zero_point_i32x8)), r_scale_f32x8);
    return divide(_mm256_add_ps(x_f32x8, y_f32x8));
  }

  __m256 least_f32x8, most_f32x8;
  __m256 q_scale_f32x8, r_scale_f32x8;
  Divide divide;
  __m256i r_zero_point_i32x8;
  bool r_signed;
};

// The residual, added before the only rounding.
struct Summer {
  explicit Summer(const EpilogueS8Params& params)
      : r_scale_f32x8(_mm256_set1_ps(params.requantize.r_scale)),
        offset_f32x8(_mm256_set1_ps(static_cast<float>(-params.requantize.r_zero_point) *
                                    params.requantize.r_scale)),
        r_signed(params.r_signed) {}

  // sum: converted, before its scale; residual: its eight bytes.
  __m256 operator()(__m256 sum, __m256 scale, __m128i residual) const {
    const __m256i r_i32x8 =
        r_signed ? _mm256_cvtepi8_epi32(residual) : _mm256_cvtepu8_epi32(residual);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(r_i32x8), r_scale_f32x8,
                           _mm256_fmadd_ps(sum, scale, offset_f32x8));
  }

  __m256 r_scale_f32x8, offset_f32x8;
  bool r_signed;
};

// Bytes of every column of every row. integers(columns, i): row i's integers, without the zero
// point, of the eight columns.
template <typename Integers>
inline void store_bytes(const EpilogueS8Params& params, const Bytes& bytes,
                        const Integers& integers) {
  uint8_t* const dst = static_cast<uint8_t*>(params.dst);
  size_t j = 0;
  for (; j + 16 <= params.n; j += 16) {
    const Columns<Whole> left(params, Whole{}, j), right(params, Whole{}, j + 8);
    size_t i = 0;
    for (; i + 2 <= params.m; i += 2) {
      const __m256i two_i8x32 = bytes(integers(left, i), integers(right, i), integers(left, i + 1),
                                      integers(right, i + 1));
      uint8_t* const to = dst + i * params.dst_stride + j;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(two_i8x32));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + params.dst_stride),
                       _mm256_extracti128_si256(two_i8x32, 1));
    }
    if (i < params.m)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i * params.dst_stride + j),
                       bytes(integers(left, i), integers(right, i)));
  }
  for_each_eight(params, j, [&](auto columns) {
    for (size_t i = 0; i < params.m; ++i) {
      const __m256i q_i32x8 = integers(columns, i);
      columns.access.store_bytes(dst + i * params.dst_stride + columns.j, bytes(q_i32x8, q_i32x8));
    }
  });
}

template <typename Divide>
inline void requantize_add(const EpilogueS8Params& params) {
  const Requantize& r = params.requantize;
  const Adder<Divide> add(params);
  const uint8_t* const residual = static_cast<const uint8_t*>(params.residual);
  store_bytes(params, Bytes(r.out_zero_point, r.out_lo, r.out_hi),
              [&](const auto& columns, size_t i) {
                const uint8_t* from = residual + i * params.residual_stride + columns.j;
                return rounded(add(columns.scaled(i), columns.access.load_bytes(from)));
              });
}

}  // namespace

// Every kernel copies its parameters: stores of bytes may alias anything that is not local, and the
// compiler would load each field again in each step.

void epilogue_s8_requantize_avx2(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const Requantize& r = params.requantize;
  store_bytes(params, Bytes(r.zero_point, r.lo, r.hi),
              [&](const auto& columns, size_t i) { return rounded(columns.scaled(i)); });
}

void epilogue_s8_requantize_add_avx2(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  if (scales_are_moderate(params.requantize))
    requantize_add<ReciprocalDivider>(params);
  else
    requantize_add<Divider>(params);
}

void epilogue_s8_requantize_sum_avx2(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const Requantize& r = params.requantize;
  const Summer add(params);
  const uint8_t* const residual = static_cast<const uint8_t*>(params.residual);
  store_bytes(params, Bytes(r.zero_point, r.lo, r.hi), [&](const auto& columns, size_t i) {
    const uint8_t* const from = residual + i * params.residual_stride + columns.j;
    return rounded(add(columns.converted(i), columns.scale_f32x8, columns.access.load_bytes(from)));
  });
}

void epilogue_s8_f32_avx2(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const __m256 min_f32x8 = _mm256_set1_ps(params.min), max_f32x8 = _mm256_set1_ps(params.max);
  const float* const residual = static_cast<const float*>(params.residual);
  float* const dst = static_cast<float*>(params.dst);
  for_each_eight(params, 0, [&](auto columns) {
    for (size_t i = 0; i < params.m; ++i) {
      __m256 y_f32x8 = columns.scaled(i);
      if (params.row_scale != nullptr)
        y_f32x8 = _mm256_mul_ps(y_f32x8, _mm256_set1_ps(params.row_scale[i]));
      if (params.float_bias != nullptr) y_f32x8 = _mm256_add_ps(y_f32x8, columns.float_bias_f32x8);
      if (residual != nullptr)
        y_f32x8 = _mm256_add_ps(y_f32x8, columns.load(residual + i * params.residual_stride));
      // Constant first: max and min then pass a NaN through.
      y_f32x8 = _mm256_min_ps(max_f32x8, _mm256_max_ps(min_f32x8, y_f32x8));
      columns.access.store(dst + i * params.dst_stride + columns.j, y_f32x8);
    }
  });
}

void epilogue_s8_s32_avx2(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  int32_t* const dst = static_cast<int32_t*>(params.dst);
  for_each_eight(params, 0, [&](auto columns) {
    for (size_t i = 0; i < params.m; ++i)
      columns.access.store(dst + i * params.dst_stride + columns.j, columns.sum(i));
  });
}

}  // namespace lepton
