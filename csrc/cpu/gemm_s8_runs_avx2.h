// The products of eight columns in runs of quads (gemm_s8.h) with up to eight rows: what the tiles
// of form u8 runs consist of. Included by their files only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/gemm_s8.h"

namespace lepton {
namespace {

constexpr size_t kKr = 4;
// What a single row, which uses every byte once, asks for ahead: the hardware's own prefetch stops
// at every page.
constexpr size_t kPrefetchBytes = 2048;

// Keeps a value in its register at this point: without it GCC hoists the broadcasts of a step above
// the arithmetic and spills accumulators.
inline void pin(__m256i& v) { asm volatile("" : "+x"(v)); }

inline __m256i broadcast_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, sizeof(quad));
  return _mm256_set1_epi32(quad);
}

// Rows of lhs by the addressing modes alone: a base, and 1, 2 or 4 times a register. Pinned,
// because GCC would step from row to row with an addition for every broadcast.
class Rows {
 public:
  explicit Rows(size_t stride)
      : one_(stride), three_(3 * stride), five_(5 * stride), seven_(7 * stride) {
    asm volatile("" : "+r"(one_), "+r"(three_), "+r"(five_), "+r"(seven_));
  }
  template <size_t kRow>
  const uint8_t* at(const uint8_t* base) const {
    if (kRow == 3) return base + three_;
    if (kRow == 5) return base + five_;
    if (kRow == 6) return base + 2 * three_;
    if (kRow == 7) return base + seven_;
    return base + kRow * one_;
  }

 private:
  size_t one_, three_, five_, seven_;
};

// A run's products of rows kRow and after.
template <size_t kRow, size_t kRows, size_t kLength>
inline void add_rows(const Rows& rows, const uint8_t* const (&from)[kLength],
                     const __m256i (&rhs_i8x32)[kLength], __m256i ones_i16x16,
                     __m256i (&sum)[kRows]) {
  __m256i run_i16x16 = _mm256_maddubs_epi16(broadcast_quad(rows.at<kRow>(from[0])), rhs_i8x32[0]);
  pin(run_i16x16);
#pragma GCC unroll 4
  for (size_t q = 1; q < kLength; ++q) {
    const __m256i lhs_u8x32 = broadcast_quad(rows.at<kRow>(from[q]));
    run_i16x16 = _mm256_add_epi16(run_i16x16, _mm256_maddubs_epi16(lhs_u8x32, rhs_i8x32[q]));
    pin(run_i16x16);
  }
  sum[kRow] = _mm256_add_epi32(sum[kRow], _mm256_madd_epi16(run_i16x16, ones_i16x16));
  pin(sum[kRow]);
  if constexpr (kRow + 1 < kRows) add_rows<kRow + 1>(rows, from, rhs_i8x32, ones_i16x16, sum);
}

template <size_t kRows, size_t kLength>
inline void add_run(const uint8_t* lhs, const Rows& rows, const int8_t* values,
                    const uint16_t* places, __m256i ones_i16x16, __m256i (&sum)[kRows]) {
  __m256i rhs_i8x32[kLength];
  const uint8_t* from[kLength];
#pragma GCC unroll 4
  for (size_t q = 0; q < kLength; ++q) {
    if (kRows == 1 && q % 2 == 0)
      _mm_prefetch(reinterpret_cast<const char*>(values + q * kQuadBytes) + kPrefetchBytes,
                   _MM_HINT_T0);
    rhs_i8x32[q] = _mm256_load_si256(reinterpret_cast<const __m256i*>(values + q * kQuadBytes));
    pin(rhs_i8x32[q]);
    from[q] = lhs + kKr * places[q];
  }
  add_rows<0>(rows, from, rhs_i8x32, ones_i16x16, sum);
}

// Returns where the next section begins.
template <size_t kRows>
inline const int8_t* add_section(const RunSection& section, const uint8_t* lhs, const Rows& rows,
                                 __m256i ones_i16x16, __m256i (&sum)[kRows]) {
  const size_t quads = section.quads();
  const int8_t* values = reinterpret_cast<const int8_t*>(&section + 1);
  const uint16_t* places = reinterpret_cast<const uint16_t*>(values + quads * kQuadBytes);
  const int8_t* const end = reinterpret_cast<const int8_t*>(places) + (quads * 2 + 31) / 32 * 32;
  for (size_t n = section.runs4; n > 0; --n, values += 4 * kQuadBytes, places += 4)
    add_run<kRows, 4>(lhs, rows, values, places, ones_i16x16, sum);
  for (size_t n = section.runs2; n > 0; --n, values += 2 * kQuadBytes, places += 2)
    add_run<kRows, 2>(lhs, rows, values, places, ones_i16x16, sum);
  for (size_t n = section.runs1; n > 0; --n, values += kQuadBytes, ++places)
    add_run<kRows, 1>(lhs, rows, values, places, ones_i16x16, sum);
  return end;
}

// Eight columns' products; returns where the next strip begins.
template <size_t kRows>
inline const int8_t* add_strip(const int8_t* rhs, const uint8_t* lhs, const Rows& rows,
                               __m256i ones_i16x16, __m256i (&sum)[kRows]) {
  bool more = true;
  while (more) {
    const RunSection& section = *reinterpret_cast<const RunSection*>(rhs);
    more = section.more != 0;
    rhs = add_section(section, lhs, rows, ones_i16x16, sum);
  }
  return rhs;
}

}  // namespace
}  // namespace lepton
