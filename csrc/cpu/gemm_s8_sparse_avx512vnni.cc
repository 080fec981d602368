// One quad is one register: a load of it and, for each of sixteen rows, a broadcast of the four
// values of lhs that it meets and one vpdpbusd. The limit is the load ports, seventeen loads for
// sixteen products of 64 multiply-accumulates: as many as the dense kernel does in the same time,
// so what is skipped is gained.
#include <immintrin.h>

#include "ops/gemm_s8_sparse.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16, kKr = 4;

// Keeps a value in its register at this point: without it GCC hoists the broadcasts above the
// arithmetic and spills accumulators.
inline void pin(__m512i& v) { asm volatile("" : "+v"(v)); }

inline __m512i broadcast_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, sizeof(quad));
  return _mm512_set1_epi32(quad);
}

// Rows as addresses can name them: two pointers with one, two or four times one of four strides, so
// that sixteen rows take six registers. Their relation is hidden from GCC, which would otherwise
// find the next row's address from the last one's.
struct Rows {
  size_t stride, stride3, stride5, stride7;
  explicit Rows(size_t bytes)
      : stride(bytes), stride3(3 * bytes), stride5(5 * bytes), stride7(7 * bytes) {
    asm volatile("" : "+r"(stride), "+r"(stride3), "+r"(stride5), "+r"(stride7));
  }
  const uint8_t* at(const uint8_t* lhs, const uint8_t* lhs8, size_t i) const {
    const uint8_t* const base = i < 8 ? lhs : lhs8;
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

// One quad against all rows.
template <size_t kRows>
inline void step(const uint8_t* lhs, const Rows& rows, const int8_t* values,
                 __m512i (&sum)[kRows]) {
  __m512i values_i8x64 = _mm512_load_si512(values);
  pin(values_i8x64);
  const uint8_t* lhs8 = lhs + 8 * rows.stride;
  asm volatile("" : "+r"(lhs8));
#pragma GCC unroll 16
  for (size_t i = 0; i < kRows; ++i) {
    sum[i] = _mm512_dpbusd_epi32(sum[i], broadcast_quad(rows.at(lhs, lhs8, i)), values_i8x64);
    pin(sum[i]);
  }
}

// One panel. With one or two rows the quads go to several chains in turn, so that vpdpbusd does not
// wait for itself.
template <size_t kRows>
inline void multiply(const uint8_t* lhs, const Rows& rows, const uint16_t* index,
                     const int8_t* values, size_t quads, bool accumulate, int32_t* dst) {
  constexpr size_t kChains = kRows == 1 ? 4 : kRows == 2 ? 2 : 1;
  __m512i sum[kChains][kRows];
#pragma GCC unroll 4
  for (size_t c = 0; c < kChains; ++c)
#pragma GCC unroll 16
    for (size_t i = 0; i < kRows; ++i)
      sum[c][i] = c == 0 && accumulate ? _mm512_load_si512(dst + i * kGemmSparseColumns)
                                       : _mm512_setzero_si512();
  size_t q = quads;
  for (; q >= kChains; q -= kChains, index += kChains, values += kChains * kNr * kKr)
#pragma GCC unroll 4
    for (size_t c = 0; c < kChains; ++c)
      step<kRows>(lhs + size_t{index[c]} * kKr, rows, values + c * kNr * kKr, sum[c]);
  for (; q > 0; --q, ++index, values += kNr * kKr)
    step<kRows>(lhs + size_t{*index} * kKr, rows, values, sum[0]);
#pragma GCC unroll 16
  for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (size_t c = 1; c < kChains; ++c) sum[0][i] = _mm512_add_epi32(sum[0][i], sum[c][i]);
    _mm512_store_si512(dst + i * kGemmSparseColumns, sum[0][i]);
  }
}

template <size_t kRows>
void tile(const GemmS8SparseParams& params, size_t first) {
  const Rows rows(params.lhs_stride);
  const uint8_t* const lhs = params.lhs + first * params.lhs_stride;
  int32_t* const dst = params.dst + first * kGemmSparseColumns;
  for (size_t p = 0; p < params.panels; ++p) {
    const size_t start = params.starts[p];
    multiply<kRows>(lhs, rows, params.index + start, params.values + start * kNr * kKr,
                    params.starts[p + 1] - start, params.accumulate, dst + p * kNr);
  }
}

}  // namespace

void gemm_s8_sparse_16x16c4_avx512vnni(const GemmS8SparseParams& params) {
  size_t i = 0;
  for (; i + 16 <= params.m; i += 16) tile<16>(params, i);
  for (; i + 8 <= params.m; i += 8) tile<8>(params, i);
  for (; i + 4 <= params.m; i += 4) tile<4>(params, i);
  for (; i + 2 <= params.m; i += 2) tile<2>(params, i);
  for (; i < params.m; ++i) tile<1>(params, i);
}

}  // namespace lepton
