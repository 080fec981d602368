// One quad is one register: vpmaddubsw multiplies it with the broadcast four values of lhs that it
// meets, vpmaddwd by ones adds its pairs, vpaddd accumulates; twelve rows share a load of it. No
// pair saturates because the packer stores a quad whose pairs could as two halves. The limit is the
// vector pipes: three instructions for 32 multiply-accumulates.
#include <immintrin.h>

#include "ops/gemm_s8_sparse.h"

namespace lepton {
namespace {

constexpr size_t kNr = 8, kKr = 4;

// Keeps a value in its register at this point: without it GCC hoists the broadcasts above the
// arithmetic and spills accumulators.
inline void pin(__m256i& v) { asm volatile("" : "+x"(v)); }

inline __m256i broadcast_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, sizeof(quad));
  return _mm256_set1_epi32(quad);
}

// Rows as addresses can name them: two pointers with one, two or four times one of four strides, so
// that twelve rows take six registers. Their relation is hidden from GCC, which would otherwise
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
inline void step(const uint8_t* lhs, const Rows& rows, const int8_t* values, __m256i ones_i16x16,
                 __m256i (&sum)[kRows]) {
  __m256i values_i8x32 = _mm256_load_si256(reinterpret_cast<const __m256i*>(values));
  pin(values_i8x32);
  const uint8_t* lhs8 = lhs + 8 * rows.stride;
  asm volatile("" : "+r"(lhs8));
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    const __m256i pairs_i16x16 =
        _mm256_maddubs_epi16(broadcast_quad(rows.at(lhs, lhs8, i)), values_i8x32);
    sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs_i16x16, ones_i16x16));
    pin(sum[i]);
  }
}

template <size_t kRows>
void tile(const GemmS8SparseParams& params, size_t first) {
  __m256i sum[kRows];
  int32_t* const dst = params.dst + first * params.dst_stride;
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i)
    sum[i] = params.accumulate
                 ? _mm256_load_si256(reinterpret_cast<__m256i*>(dst + i * params.dst_stride))
                 : _mm256_setzero_si256();
  const __m256i ones_i16x16 = _mm256_set1_epi16(1);
  const Rows rows(params.lhs_stride);
  const uint8_t* const lhs = params.lhs + first * params.lhs_stride;
  const int8_t* values = params.values;
  for (size_t q = 0; q < params.quads; ++q, values += kNr * kKr)
    step<kRows>(lhs + size_t{params.index[q]} * kKr, rows, values, ones_i16x16, sum);
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i)
    _mm256_store_si256(reinterpret_cast<__m256i*>(dst + i * params.dst_stride), sum[i]);
}

}  // namespace

void gemm_s8_sparse_12x8c4_avx2(const GemmS8SparseParams& params) {
  size_t i = 0;
  for (; i + 12 <= params.m; i += 12) tile<12>(params, i);
  for (; i + 4 <= params.m; i += 4) tile<4>(params, i);
  for (; i < params.m; ++i) tile<1>(params, i);
}

}  // namespace lepton
