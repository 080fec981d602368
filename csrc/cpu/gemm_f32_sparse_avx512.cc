// One stored row of a panel is one register: a load of it and, for each of sixteen rows of lhs, the
// value that it meets, broadcast into one FMA. The limit is the two FMA pipes, eight cycles for 256
// multiply-accumulates, with the load ports at seventeen loads in the same time close behind; deep
// k adds lines of lhs that come from L2, of which few values are used.
#include <immintrin.h>

#include "ops/gemm_f32_sparse.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16;

// Keeps a value in its register at this point: without it GCC hoists the broadcasts above the
// arithmetic and spills accumulators.
inline void pin(__m512& v) { asm volatile("" : "+v"(v)); }

// Rows as addresses can name them: two pointers with one, two or four times one of four strides, so
// that sixteen rows take six registers. Their relation is hidden from GCC, which would otherwise
// find the next row's address from the last one's.
struct Rows {
  size_t stride, stride3, stride5, stride7;
  explicit Rows(size_t elements)
      : stride(elements), stride3(3 * elements), stride5(5 * elements), stride7(7 * elements) {
    asm volatile("" : "+r"(stride), "+r"(stride3), "+r"(stride5), "+r"(stride7));
  }
  const float* at(const float* lhs, const float* lhs8, size_t i) const {
    const float* const base = i < 8 ? lhs : lhs8;
    switch (i % 8) {
      case 0: return base;
      case 3: return base + stride3;
      case 5: return base + stride5;
      case 6: return base + 2 * stride3;
      case 7: return base + stride7;
      default: return base + i % 8 * stride;
    }
  }
};

// One stored row against all rows of lhs.
template <size_t kRows>
inline void step(const float* lhs, const Rows& rows, const float* values, __m512 (&sum)[kRows]) {
  __m512 values_f32x16 = _mm512_load_ps(values);
  pin(values_f32x16);
  const float* lhs8 = lhs + 8 * rows.stride;
  asm volatile("" : "+r"(lhs8));
#pragma GCC unroll 16
  for (size_t i = 0; i < kRows; ++i) {
    sum[i] = _mm512_fmadd_ps(_mm512_set1_ps(*rows.at(lhs, lhs8, i)), values_f32x16, sum[i]);
    pin(sum[i]);
  }
}

template <size_t kRows>
void tile(const GemmF32SparseParams& params, size_t first) {
  const Rows rows(params.lhs_stride);
  const float* const lhs = params.lhs + first * params.lhs_stride;
  float* dst = params.dst + first * kGemmF32SparseColumns;
  for (size_t p = 0; p < params.panels; ++p, dst += kNr) {
    __m512 sum[kRows];
#pragma GCC unroll 16
    for (size_t i = 0; i < kRows; ++i) sum[i] = _mm512_setzero_ps();
    const uint16_t* const end = params.index + params.starts[p + 1];
    const float* values = params.values + size_t{params.starts[p]} * kNr;
    for (const uint16_t* q = params.index + params.starts[p]; q < end; ++q, values += kNr)
      step<kRows>(lhs + *q, rows, values, sum);
#pragma GCC unroll 16
    for (size_t i = 0; i < kRows; ++i) _mm512_store_ps(dst + i * kGemmF32SparseColumns, sum[i]);
  }
}

}  // namespace

void gemm_f32_sparse_16x16_avx512(const GemmF32SparseParams& params) {
  size_t i = 0;
  for (; i + 16 <= params.m; i += 16) tile<16>(params, i);
  for (; i + 8 <= params.m; i += 8) tile<8>(params, i);
  for (; i + 4 <= params.m; i += 4) tile<4>(params, i);
  for (; i + 2 <= params.m; i += 2) tile<2>(params, i);
  for (; i < params.m; ++i) tile<1>(params, i);
}

}  // namespace lepton
