// Bytes: four registers of sixteen accumulators go together, 64 columns of a row or sixteen of four
// rows, through saturating packs to one register of bytes. They take every stage side by side: the
// quantised addition is a chain of some twenty operations of four cycles each, and one chain after
// another would fill the scheduler with operations that wait. Its quotient comes from
// multiplications (ReciprocalDivider), as a division would take longer than all the rest. Sums:
// sixteen columns at a time, down the rows, as in epilogue_s8_avx2.cc. Masks take care of
// what is left of n. Bound by arithmetic: six instructions for sixteen columns, nine with a
// residual, twenty-two where the product is rounded before it is added.
#include <immintrin.h>

#include "cpu/requantize_avx512.h"
#include "ops/epilogue.h"

namespace lepton {
namespace {

// Sixteen columns from j on, or the first of them: what belongs to columns stays in registers while
// rows pass by.
struct Columns {
  Columns(const EpilogueS8Params& of, size_t first)
      : params(of), j(first), mask(of.n - first >= 16 ? 0xffff : (1u << (of.n - first)) - 1) {
    bias_i32x16 = load(params.bias);
    column_sum_i32x16 = load(params.column_sum);
    scale_f32x16 = load(params.scale);
  }
  __m512i load(const int32_t* p) const {
    return p == nullptr ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(mask, p + j);
  }
  __m512 load(const float* p) const {
    return p == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, p + j);
  }
  __m512i sum(size_t i) const {
    const __m512i acc_i32x16 = load(params.acc + i * params.acc_stride);
    const __m512i sum_i32x16 = _mm512_add_epi32(acc_i32x16, bias_i32x16);
    if (params.row_zero_point == nullptr) return sum_i32x16;
    const __m512i zero_point_i32x16 = _mm512_set1_epi32(params.row_zero_point[i]);
    return _mm512_sub_epi32(sum_i32x16, _mm512_mullo_epi32(zero_point_i32x16, column_sum_i32x16));
  }
  __m512 scaled(size_t i, __m512 offset_f32x16) const {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum(i)), scale_f32x16, offset_f32x16);
  }

  const EpilogueS8Params& params;
  size_t j;
  __mmask16 mask;
  __m512i bias_i32x16, column_sum_i32x16;
  __m512 scale_f32x16;
};

// Calls body(columns, i) for every sixteen columns and row.
template <typename Body>
inline void for_each(const EpilogueS8Params& params, const Body& body) {
  for (size_t j = 0; j < params.n; j += 16) {
    const Columns columns(params, j);
    for (size_t i = 0; i < params.m; ++i) body(columns, i);
  }
}

// What changes no product that it is added to, not even a zero's sign.
inline __m512 no_offset() { return _mm512_set1_ps(-0.f); }

// Keeps a value in its register at this point, and so the stages of four chains in their order.
inline void pin(__m512& v) { asm volatile("" : "+v"(v)); }

// Four registers of accumulators: 64 columns of row i from j on.
struct Wide {
  Wide(const EpilogueS8Params& of, size_t first) : params(of), j(first) {
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      const size_t at = j + 16 * k;
      bias_i32x16[k] =
          params.bias == nullptr ? _mm512_setzero_si512() : _mm512_loadu_si512(params.bias + at);
      scale_f32x16[k] = _mm512_loadu_ps(params.scale + at);
    }
  }
  __attribute__((always_inline)) void load(size_t i, __m512 offset_f32x16, __m512 (&v)[4]) const {
    const int32_t* const acc = params.acc + i * params.acc_stride + j;
    __m512i sum_i32x16[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      sum_i32x16[k] = _mm512_add_epi32(bias_i32x16[k], _mm512_loadu_si512(acc + 16 * k));
    }
    if (params.row_zero_point != nullptr) {
      const __m512i zero_point_i32x16 = _mm512_set1_epi32(params.row_zero_point[i]);
#pragma GCC unroll 4
      for (size_t k = 0; k < 4; ++k) {
        const __m512i column_sum_i32x16 = _mm512_loadu_si512(params.column_sum + j + 16 * k);
        sum_i32x16[k] = _mm512_sub_epi32(sum_i32x16[k],
                                         _mm512_mullo_epi32(zero_point_i32x16, column_sum_i32x16));
      }
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      v[k] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum_i32x16[k]), scale_f32x16[k], offset_f32x16);
    }
  }
  __m128i load_bytes(const uint8_t* from, size_t stride, size_t i, size_t k) const {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * stride + j + 16 * k));
  }
  __attribute__((always_inline)) void store(uint8_t* to, size_t stride, size_t i,
                                            __m512i bytes) const {
    _mm512_storeu_si512(to + i * stride + j, bytes);
  }

  const EpilogueS8Params& params;
  size_t j;
  __m512i bias_i32x16[4];
  __m512 scale_f32x16[4];
};

// Four registers of accumulators: at most sixteen columns of four rows from i on, of which those
// beyond m are the last one again.
struct Tall {
  Tall(const EpilogueS8Params& of, size_t first) : params(of), columns(of, first) {}
  size_t row(size_t i, size_t k) const { return i + k < params.m ? i + k : params.m - 1; }
  __attribute__((always_inline)) void load(size_t i, __m512 offset_f32x16, __m512 (&v)[4]) const {
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      v[k] = columns.scaled(row(i, k), offset_f32x16);
    }
  }
  __m128i load_bytes(const uint8_t* from, size_t stride, size_t i, size_t k) const {
    return _mm_maskz_loadu_epi8(columns.mask, from + row(i, k) * stride + columns.j);
  }
  __attribute__((always_inline)) void store(uint8_t* to, size_t stride, size_t i,
                                            __m512i bytes) const {
    to += i * stride + columns.j;
    const __m128i row_i8x16[] = {_mm512_castsi512_si128(bytes), _mm512_extracti32x4_epi32(bytes, 1),
                                 _mm512_extracti32x4_epi32(bytes, 2),
                                 _mm512_extracti32x4_epi32(bytes, 3)};
    for (size_t k = 0; k < 4 && i + k < params.m; ++k, to += stride)
      _mm_mask_storeu_epi8(to, columns.mask, row_i8x16[k]);
  }

  const EpilogueS8Params& params;
  const Columns columns;
};

// v / divisor.
struct Divider {
  explicit Divider(float divisor) : divisor_f32x16(_mm512_set1_ps(divisor)) {}
  __attribute__((always_inline)) void operator()(__m512 (&v)[4]) const {
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      v[k] = _mm512_div_ps(v[k], divisor_f32x16);
    }
  }
  __m512 divisor_f32x16;
};

// The same bits from the correctly rounded reciprocal and what it lacks: their sum brings the
// quotient within a unit of its last place, and one correction by an exact remainder rounds it
// correctly (Markstein, IBM J. Res. Dev. 34(1), 1990). Needs every product to stay normal, or so
// small that it rounds to zero anyway: scales_are_moderate.
struct ReciprocalDivider {
  explicit ReciprocalDivider(float divisor)
      : divisor_f32x16(_mm512_set1_ps(divisor)),
        reciprocal_f32x16(_mm512_set1_ps(1.f / divisor)),
        rest_f32x16(_mm512_set1_ps(static_cast<float>(1. / divisor - 1.f / divisor))) {}
  __attribute__((always_inline)) void operator()(__m512 (&v)[4]) const {
    __m512 q_f32x16[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      q_f32x16[k] = _mm512_mul_ps(v[k], rest_f32x16), pin(q_f32x16[k]);
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      q_f32x16[k] = _mm512_fmadd_ps(v[k], reciprocal_f32x16, q_f32x16[k]), pin(q_f32x16[k]);
    }
    correct(v, q_f32x16);
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      v[k] = q_f32x16[k];
    }
  }
  __attribute__((always_inline)) void correct(const __m512 (&v)[4], __m512 (&q)[4]) const {
    __m512 rest_f32x16[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      rest_f32x16[k] = _mm512_fnmadd_ps(q[k], divisor_f32x16, v[k]), pin(rest_f32x16[k]);
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      q[k] = _mm512_fmadd_ps(rest_f32x16[k], reciprocal_f32x16, q[k]), pin(q[k]);
    }
  }
  __m512 divisor_f32x16, reciprocal_f32x16, rest_f32x16;
};

// The quantised addition of a residual: from q's float to the sum in units of the output.
template <typename Divide>
struct Adder {
  explicit Adder(const EpilogueS8Params& params)
      : least_f32x16(_mm512_set1_ps(
            static_cast<float>(params.requantize.lo - params.requantize.zero_point))),
        most_f32x16(_mm512_set1_ps(
            static_cast<float>(params.requantize.hi - params.requantize.zero_point))),
        q_scale_f32x16(_mm512_set1_ps(params.requantize.q_scale)),
        r_scale_f32x16(_mm512_set1_ps(params.requantize.r_scale)),
        divide(params.requantize.out_scale),
        flip_i8x16(_mm_set1_epi8(static_cast<char>(params.r_signed ? 0x80 : 0))),
        r_zero_point_i32x16(
            _mm512_set1_epi32(params.requantize.r_zero_point + (params.r_signed ? 0x80 : 0))) {}

  // v: q before rounding; residual: their bytes. NaN: max returns its second operand, lo.
  __attribute__((always_inline)) void operator()(__m512 (&v)[4],
                                                 const __m128i (&residual)[4]) const {
    __m512 y_f32x16[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      const __m512i r_i32x16 = _mm512_cvtepu8_epi32(_mm_xor_si128(residual[k], flip_i8x16));
      y_f32x16[k] = _mm512_cvtepi32_ps(_mm512_sub_epi32(r_i32x16, r_zero_point_i32x16));
      v[k] = _mm512_max_ps(v[k], least_f32x16), pin(v[k]);
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      v[k] = _mm512_min_ps(v[k], most_f32x16), pin(v[k]);
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      v[k] = _mm512_cvtepi32_ps(_mm512_cvtps_epi32(v[k]));
      y_f32x16[k] = _mm512_mul_ps(y_f32x16[k], r_scale_f32x16), pin(v[k]);
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      v[k] = _mm512_mul_ps(v[k], q_scale_f32x16), pin(v[k]);
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      v[k] = _mm512_add_ps(v[k], y_f32x16[k]), pin(v[k]);
    }
    divide(v);
  }

  __m512 least_f32x16, most_f32x16;
  __m512 q_scale_f32x16, r_scale_f32x16;
  Divide divide;
  __m128i flip_i8x16;
  __m512i r_zero_point_i32x16;
};

// The residual, added before the only rounding: to sum · scale + offset.
struct Summer {
  explicit Summer(const EpilogueS8Params& params)
      : r_scale_f32x16(_mm512_set1_ps(params.requantize.r_scale)),
        offset_f32x16(_mm512_set1_ps(static_cast<float>(-params.requantize.r_zero_point) *
                                     params.requantize.r_scale)),
        r_signed(params.r_signed) {}

  __attribute__((always_inline)) void operator()(__m512 (&v)[4],
                                                 const __m128i (&residual)[4]) const {
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      const __m512i r_i32x16 =
          r_signed ? _mm512_cvtepi8_epi32(residual[k]) : _mm512_cvtepu8_epi32(residual[k]);
      v[k] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(r_i32x16), r_scale_f32x16, v[k]);
    }
  }

  __m512 r_scale_f32x16, offset_f32x16;
  bool r_signed;
};

// What becomes of scaled sums, which start from an offset: change(group, i, v), then clamp(rint(v)
// + zero_point, lo, hi).
struct Range {
  int32_t zero_point, lo, hi;
  bool fits_int32;  // where scales are moderate
};

// Bytes of every column of every row.
template <typename Change>
inline void store_bytes(const EpilogueS8Params& params, const Range& range, __m512 offset_f32x16,
                        const Change& change) {
  uint8_t* const dst = static_cast<uint8_t*>(params.dst);
  const Bytes<true> guarded(range.zero_point, range.lo, range.hi);
  const Bytes<false> plain(range.zero_point, range.lo, range.hi);
  const bool may_be_plain = range.fits_int32 && is_whole_range(range.lo, range.hi);
  const auto rows = [&](const auto& group, size_t step, const auto& bytes) {
    for (size_t i = 0; i < params.m; i += step) {
      __m512 v[4];
      group.load(i, offset_f32x16, v);
      change(group, i, v);
      group.store(dst, params.dst_stride, i, bytes(v));
    }
  };
  size_t j = 0;
  for (; j + 64 <= params.n; j += 64) {
    const Wide columns(params, j);
    if (may_be_plain && are_moderate(columns.scale_f32x16))
      rows(columns, 1, plain);
    else
      rows(columns, 1, guarded);
  }
  for (; j < params.n; j += 16) rows(Tall(params, j), 4, guarded);
}

// add(v, residual): changes scaled sums by their bytes of the residual.
template <typename Add>
inline void add_bytes(const EpilogueS8Params& params, const Range& range, __m512 offset_f32x16,
                      const Add& add) {
  const uint8_t* const residual = static_cast<const uint8_t*>(params.residual);
  store_bytes(params, range, offset_f32x16, [&](const auto& group, size_t i, __m512(&v)[4]) {
    __m128i r_i8x16[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      r_i8x16[k] = group.load_bytes(residual, params.residual_stride, i, k);
    }
    add(v, r_i8x16);
  });
}

}  // namespace

// Every kernel copies its parameters: stores of bytes may alias anything that is not local, and the
// compiler would load each field again in each step.

void epilogue_s8_requantize_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const Requantize& r = params.requantize;
  store_bytes(params, {r.zero_point, r.lo, r.hi, true}, no_offset(),
              [](const auto&, size_t, const __m512(&)[4]) {});
}

void epilogue_s8_requantize_add_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const Requantize& r = params.requantize;
  const Range range = {r.out_zero_point, r.out_lo, r.out_hi, false};
  if (scales_are_moderate(r))
    add_bytes(params, range, no_offset(), Adder<ReciprocalDivider>(params));
  else
    add_bytes(params, range, no_offset(), Adder<Divider>(params));
}

void epilogue_s8_requantize_sum_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const Requantize& r = params.requantize;
  const Summer add(params);
  add_bytes(params, {r.zero_point, r.lo, r.hi, is_moderate_residual(r.r_scale)}, add.offset_f32x16,
            add);
}

void epilogue_s8_s32_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  int32_t* const dst = static_cast<int32_t*>(params.dst);
  for_each(params, [&](const Columns& columns, size_t i) {
    _mm512_mask_storeu_epi32(dst + i * params.dst_stride + columns.j, columns.mask, columns.sum(i));
  });
}

}  // namespace lepton
