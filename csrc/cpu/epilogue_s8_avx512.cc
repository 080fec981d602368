// Sixteen columns at a time, down the rows, as in epilogue_s8_avx2.cc: bias and scale stay in
// registers, masks take care of what is left of n. The quotient of the quantised addition comes
// from multiplications (Divider), as a division would take longer than all the rest. Bound by
// arithmetic: about ten instructions for sixteen columns.
#include <immintrin.h>

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
    float_bias_f32x16 = load(params.float_bias);
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
  __m512 scaled(size_t i) const { return _mm512_mul_ps(_mm512_cvtepi32_ps(sum(i)), scale_f32x16); }
  __m128i load_bytes(const uint8_t* row) const { return _mm_maskz_loadu_epi8(mask, row + j); }
  void store_bytes(uint8_t* row, __m512i v) const {
    _mm_mask_storeu_epi8(row + j, mask, _mm512_cvtepi32_epi8(v));
  }

  const EpilogueS8Params& params;
  size_t j;
  __mmask16 mask;
  __m512i bias_i32x16, column_sum_i32x16;
  __m512 scale_f32x16, float_bias_f32x16;
};

// Calls body(columns, i) for every sixteen columns and row.
template <typename Body>
inline void for_each(const EpilogueS8Params& params, const Body& body) {
  for (size_t j = 0; j < params.n; j += 16) {
    const Columns columns(params, j);
    for (size_t i = 0; i < params.m; ++i) body(columns, i);
  }
}

// clamp(rint(v) + zero_point, lo, hi).
struct Quantizer {
  Quantizer(int32_t zero_point, int32_t lo, int32_t hi)
      : least_f32x16(_mm512_set1_ps(static_cast<float>(lo - zero_point))),
        most_f32x16(_mm512_set1_ps(static_cast<float>(hi - zero_point))),
        zero_point_i32x16(_mm512_set1_epi32(zero_point)) {}

  // rint(v) clamped, still without the zero point. NaN: max returns its second operand, lo.
  __m512i centred(__m512 v) const {
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(v, least_f32x16), most_f32x16));
  }
  // The range is right already, so the low byte serves u8 and s8 alike.
  __m512i operator()(__m512 v) const { return _mm512_add_epi32(centred(v), zero_point_i32x16); }

  __m512 least_f32x16, most_f32x16;
  __m512i zero_point_i32x16;
};

// The quantised addition of a residual: from q's float to the sum in units of the output.
template <typename Divide>
struct Adder {
  explicit Adder(const EpilogueS8Params& params)
      : inner(params.requantize.zero_point, params.requantize.lo, params.requantize.hi),
        q_scale_f32x16(_mm512_set1_ps(params.requantize.q_scale)),
        r_scale_f32x16(_mm512_set1_ps(params.requantize.r_scale)),
        divide(params.requantize.out_scale),
        r_zero_point_i32x16(_mm512_set1_epi32(params.requantize.r_zero_point)),
        r_signed(params.r_signed) {}

  // v: q before rounding; residual: its sixteen bytes.
  __m512 operator()(__m512 v, __m128i residual) const {
    const __m512i r_i32x16 =
        r_signed ? _mm512_cvtepi8_epi32(residual) : _mm512_cvtepu8_epi32(residual);
    const __m512 x_f32x16 = _mm512_mul_ps(_mm512_cvtepi32_ps(inner.centred(v)), q_scale_f32x16);
    const __m512 y_f32x16 = _mm512_mul_ps(
        _mm512_cvtepi32_ps(_mm512_sub_epi32(r_i32x16, r_zero_point_i32x16)), r_scale_f32x16);
    return divide(_mm512_add_ps(x_f32x16, y_f32x16));
  }

  Quantizer inner;
  __m512 q_scale_f32x16, r_scale_f32x16;
  Divide divide;
  __m512i r_zero_point_i32x16;
  bool r_signed;
};

// v / divisor.
struct Divider {
  explicit Divider(float divisor) : divisor_f32x16(_mm512_set1_ps(divisor)) {}
  __m512 operator()(__m512 v) const { return _mm512_div_ps(v, divisor_f32x16); }
  __m512 divisor_f32x16;
};

// The same bits from the correctly rounded reciprocal: two corrections by exact remainders
// (Markstein, IBM J. Res. Dev. 34(1), 1990), of which the first brings the quotient within a unit
// of its last place and the second rounds it correctly. Needs every product to stay normal, or so
// small that it rounds to zero anyway: scales_are_moderate.
struct ReciprocalDivider {
  explicit ReciprocalDivider(float divisor)
      : divisor_f32x16(_mm512_set1_ps(divisor)), reciprocal_f32x16(_mm512_set1_ps(1.f / divisor)) {}
  __m512 corrected(__m512 q, __m512 v) const {
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, divisor_f32x16, v), reciprocal_f32x16, q);
  }
  __m512 operator()(__m512 v) const {
    return corrected(corrected(_mm512_mul_ps(v, reciprocal_f32x16), v), v);
  }
  __m512 divisor_f32x16, reciprocal_f32x16;
};

template <typename Divide>
inline void requantize_add(const EpilogueS8Params& params) {
  const Requantize& r = params.requantize;
  const Adder<Divide> add(params);
  const Quantizer outer(r.out_zero_point, r.out_lo, r.out_hi);
  const uint8_t* const residual = static_cast<const uint8_t*>(params.residual);
  uint8_t* const dst = static_cast<uint8_t*>(params.dst);
  for_each(params, [&](const Columns& columns, size_t i) {
    const __m128i r_i8x16 = columns.load_bytes(residual + i * params.residual_stride);
    const __m512 v_f32x16 = add(columns.scaled(i), r_i8x16);
    columns.store_bytes(dst + i * params.dst_stride, outer(v_f32x16));
  });
}

}  // namespace

// Every kernel copies its parameters: stores of bytes may alias anything that is not local, and the
// compiler would load each field again in each step.

void epilogue_s8_requantize_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const Requantize& r = params.requantize;
  const Quantizer quantizer(r.zero_point, r.lo, r.hi);
  uint8_t* const dst = static_cast<uint8_t*>(params.dst);
  for_each(params, [&](const Columns& columns, size_t i) {
    columns.store_bytes(dst + i * params.dst_stride, quantizer(columns.scaled(i)));
  });
}

void epilogue_s8_requantize_add_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  if (scales_are_moderate(params.requantize))
    requantize_add<ReciprocalDivider>(params);
  else
    requantize_add<Divider>(params);
}

void epilogue_s8_f32_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const __m512 min_f32x16 = _mm512_set1_ps(params.min), max_f32x16 = _mm512_set1_ps(params.max);
  const float* const residual = static_cast<const float*>(params.residual);
  float* const dst = static_cast<float*>(params.dst);
  for_each(params, [&](const Columns& columns, size_t i) {
    __m512 y_f32x16 = columns.scaled(i);
    if (params.row_scale != nullptr)
      y_f32x16 = _mm512_mul_ps(y_f32x16, _mm512_set1_ps(params.row_scale[i]));
    if (params.float_bias != nullptr) y_f32x16 = _mm512_add_ps(y_f32x16, columns.float_bias_f32x16);
    if (residual != nullptr)
      y_f32x16 = _mm512_add_ps(y_f32x16, columns.load(residual + i * params.residual_stride));
    // Constant first: max and min then pass a NaN through.
    y_f32x16 = _mm512_min_ps(max_f32x16, _mm512_max_ps(min_f32x16, y_f32x16));
    _mm512_mask_storeu_ps(dst + i * params.dst_stride + columns.j, columns.mask, y_f32x16);
  });
}

void epilogue_s8_s32_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  int32_t* const dst = static_cast<int32_t*>(params.dst);
  for_each(params, [&](const Columns& columns, size_t i) {
    _mm512_mask_storeu_epi32(dst + i * params.dst_stride + columns.j, columns.mask, columns.sum(i));
  });
}

}  // namespace lepton
