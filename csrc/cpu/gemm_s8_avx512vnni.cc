// A 6x64 tile over quads of p: vpdpbusd multiplies a broadcast quad of one lhs row with sixteen
// columns' quads, adds up each quad and accumulates. Twenty-four accumulators, four registers of
// rhs and one broadcast of the 32. The limit is the two ports of vpdpbusd: twelve cycles a step for
// 1,536 multiply-accumulates, beside ten loads. A narrower last panel uses fewer columns of
// registers. Rows that are windows have a pointer each, in a register, and share the place in them.
// A panel may come from L2, four lines a step, as long as no others arrive in bursts beside it.
#include <immintrin.h>

#include "cpu/gemm_s8_vnni512.h"
#include "ops/gemm_s8.h"
#include "ops/gemm_s8_windows.h"

namespace lepton {
namespace {

template <size_t kRows, size_t kVectors>
inline void start(const int32_t* dst, bool accumulate, __m512i (&sum)[kRows][kVectors]) {
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v)
      sum[i][v] =
          accumulate ? _mm512_load_si512(dst + (i * kVectors + v) * kNv) : _mm512_setzero_si512();
}

template <size_t kRows, size_t kVectors>
inline void store(const __m512i (&sum)[kRows][kVectors], int32_t* dst) {
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v)
      _mm512_store_si512(dst + (i * kVectors + v) * kNv, sum[i][v]);
}

template <size_t kRows, size_t kVectors>
void tile(const GemmS8Params& params) {
  __m512i sum[kRows][kVectors];
  start(params.dst, params.accumulate, sum);
  const uint8_t* lhs = static_cast<const uint8_t*>(params.lhs);
  const int8_t* rhs = static_cast<const int8_t*>(params.rhs);
  const size_t stride = params.lhs_stride;
  constexpr size_t kStep = kVectors * kNv * kKr;
  static_assert(kStreamDepth == 2 * kKr);
  // Without lines to fetch, again and again one that is there.
  const auto* next =
      params.next == nullptr ? static_cast<const std::byte*>(params.rhs) : params.next;
  const size_t next_stride = params.next == nullptr ? 0 : params.next_stride;
  size_t p = params.k;
  for (; p >= 2 * kKr; p -= 2 * kKr, lhs += 2 * kKr, rhs += 2 * kStep) {
    _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    next += next_stride;
    step([&](size_t i) { return lhs + i * stride; }, rhs, sum);
    step([&](size_t i) { return lhs + kKr + i * stride; }, rhs + kStep, sum);
  }
  if (p > 0) step([&](size_t i) { return lhs + i * stride; }, rhs, sum);
  store(sum, params.dst);
}

template <size_t kRows, size_t kVectors>
void tile(const GemmS8WindowsParams& params) {
  __m512i sum[kRows][kVectors];
  start(params.dst, params.accumulate, sum);
  const uint8_t* rows[kRows];
  for (size_t i = 0; i < kRows; ++i) rows[i] = params.lhs[i] + params.offset;
  const int8_t* rhs = static_cast<const int8_t*>(params.rhs);
  constexpr size_t kStep = kVectors * kNv * kKr;
  for (size_t r = 0, from = 0; r < params.runs; ++r, from += params.pitch) {
    const size_t end = from + params.run;
    size_t p = from;
    for (; p + 2 * kKr <= end; p += 2 * kKr, rhs += 2 * kStep) {
      step([&](size_t i) { return rows[i] + p; }, rhs, sum);
      step([&](size_t i) { return rows[i] + p + kKr; }, rhs + kStep, sum);
    }
    if (p < end) step([&](size_t i) { return rows[i] + p; }, rhs, sum), rhs += kStep;
  }
  store(sum, params.dst);
}

template <size_t kVectors, typename Params>
void rows(const Params& params) {
  switch (params.m) {
    case 1: return tile<1, kVectors>(params);
    case 2: return tile<2, kVectors>(params);
    case 3: return tile<3, kVectors>(params);
    case 4: return tile<4, kVectors>(params);
    case 5: return tile<5, kVectors>(params);
    default: return tile<6, kVectors>(params);
  }
}

template <typename Params>
void columns(const Params& params) {
  switch (params.n / kNv) {
    case 1: return rows<1>(params);
    case 2: return rows<2>(params);
    case 3: return rows<3>(params);
    default: return rows<4>(params);
  }
}

}  // namespace

void gemm_s8_6x64c4_avx512vnni(const GemmS8Params& params) { columns(params); }

void gemm_s8_windows_6x64c4_avx512vnni(const GemmS8WindowsParams& params) { columns(params); }

}  // namespace lepton
