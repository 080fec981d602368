// One quad is one register: a load of it and, for each of up to 28 rows, a broadcast of the four
// values of lhs that it meets and one vpdpbusd. The limit is the load ports, 29 loads for 28
// products of 64 multiply-accumulates: about as many as the dense kernel does in the same time, so
// what is skipped is gained.
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

// Rows as addresses can name them: a pointer for every eight, with one, two or four times one of
// four strides, so that 28 rows take eight registers. Their relation is hidden from GCC, which
// would otherwise find the next row's address from the last one's.
struct Rows {
  size_t stride, stride3, stride5, stride7;
  explicit Rows(size_t bytes)
      : stride(bytes), stride3(3 * bytes), stride5(5 * bytes), stride7(7 * bytes) {
    asm volatile("" : "+r"(stride), "+r"(stride3), "+r"(stride5), "+r"(stride7));
  }
  // Row i of the eight at base.
  const uint8_t* at(const uint8_t* base, size_t i) const {
    switch (i) {
      case 0: return base;
      case 3: return base + stride3;
      case 5: return base + stride5;
      case 6: return base + 2 * stride3;
      case 7: return base + stride7;
      default: return base + i * stride;
    }
  }
};

// One quad against row i, which follows row i − 1; lhs: the first of every eight rows.
template <size_t kRows>
__attribute__((always_inline)) inline void add_row(size_t i, const Rows& rows, const uint8_t*& lhs,
                                                   __m512i values_i8x64, __m512i (&sum)[kRows]) {
  if (i > 0 && i % 8 == 0) {
    lhs += 8 * rows.stride;
    asm volatile("" : "+r"(lhs));
  }
  sum[i] = _mm512_dpbusd_epi32(sum[i], broadcast_quad(rows.at(lhs, i % 8)), values_i8x64);
  pin(sum[i]);
}

// One quad against all rows.
template <size_t kRows>
inline void step(const uint8_t* lhs, const Rows& rows, const int8_t* values,
                 __m512i (&sum)[kRows]) {
  __m512i values_i8x64 = _mm512_load_si512(values);
  pin(values_i8x64);
#pragma GCC unroll 28
  for (size_t i = 0; i < kRows; ++i) add_row(i, rows, lhs, values_i8x64, sum);
}

// Two quads against all rows, the second some rows behind the first: two loads of a cycle then
// seldom have the same place within their lines, which would make one of them wait.
template <size_t kRows>
inline void step(const uint8_t* first, const uint8_t* second, const Rows& rows,
                 const int8_t* values, __m512i (&sum)[kRows]) {
  constexpr size_t kBehind = 4;
  __m512i first_i8x64 = _mm512_load_si512(values);
  __m512i second_i8x64 = _mm512_load_si512(values + kNr * kKr);
  pin(first_i8x64);
  pin(second_i8x64);
#pragma GCC unroll 32
  for (size_t i = 0; i < kRows + kBehind; ++i) {
    if (i < kRows) add_row(i, rows, first, first_i8x64, sum);
    if (i >= kBehind) add_row(i - kBehind, rows, second, second_i8x64, sum);
  }
}

// One panel. With a few rows the quads go to several chains in turn, so that vpdpbusd does not wait
// for itself.
template <size_t kRows>
inline void multiply(const uint8_t* lhs, const Rows& rows, const uint16_t* index,
                     const int8_t* values, size_t quads, bool accumulate, int32_t* dst) {
  constexpr size_t kChains = kRows == 1 ? 4 : kRows <= 9 ? 2 : 1;
  __m512i sum[kChains][kRows];
#pragma GCC unroll 4
  for (size_t c = 0; c < kChains; ++c)
#pragma GCC unroll 28
    for (size_t i = 0; i < kRows; ++i)
      sum[c][i] = c == 0 && accumulate ? _mm512_load_si512(dst + i * kGemmSparseColumns)
                                       : _mm512_setzero_si512();
  size_t q = quads;
  if constexpr (kChains == 1)
    for (; q >= 2; q -= 2, index += 2, values += 2 * kNr * kKr)
      step<kRows>(lhs + size_t{index[0]} * kKr, lhs + size_t{index[1]} * kKr, rows, values, sum[0]);
  for (; q >= kChains; q -= kChains, index += kChains, values += kChains * kNr * kKr)
#pragma GCC unroll 4
    for (size_t c = 0; c < kChains; ++c)
      step<kRows>(lhs + size_t{index[c]} * kKr, rows, values + c * kNr * kKr, sum[c]);
  for (; q > 0; --q, ++index, values += kNr * kKr)
    step<kRows>(lhs + size_t{*index} * kKr, rows, values, sum[0]);
#pragma GCC unroll 28
  for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (size_t c = 1; c < kChains; ++c) sum[0][i] = _mm512_add_epi32(sum[0][i], sum[c][i]);
    _mm512_store_si512(dst + i * kGemmSparseColumns, sum[0][i]);
  }
}

template <size_t kRows>
void tile(const GemmS8SparseParams& params) {
  const Rows rows(params.lhs_stride);
  for (size_t p = 0; p < params.panels; ++p) {
    const size_t start = params.starts[p];
    multiply<kRows>(params.lhs, rows, params.index + start, params.values + start * kNr * kKr,
                    params.starts[p + 1] - start, params.accumulate, params.dst + p * kNr);
  }
}

// The tile of params.m rows, of which there are at most kRows.
template <size_t kRows>
void tile_of(const GemmS8SparseParams& params) {
  if constexpr (kRows > 1)
    if (params.m < kRows) return tile_of<kRows - 1>(params);
  tile<kRows>(params);
}

}  // namespace

void gemm_s8_sparse_28x16c4_avx512vnni(const GemmS8SparseParams& params) { tile_of<28>(params); }

}  // namespace lepton
