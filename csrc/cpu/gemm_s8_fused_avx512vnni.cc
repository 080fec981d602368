// The 6x64 tile of gemm_s8_avx512vnni.cc, requantised in registers: storing the sums and reading
// them again would take longer than the bytes do. A panel passes by all rows, from L2 where it does
// not fit L1: four lines a step of twelve cycles. Sums start from the bias. Panels of up to 32
// columns take twelve rows at once. Four registers become 64 bytes at once: a row of 64 columns,
// two of 32 or four of 16. Results that need no clamp of their own, since scaled sums stay far
// within int32 and the bounds are those of a byte, take four instructions for sixteen, and half a
// one more with a zero point; others, and rows that fill no tile, go through memory
// (gemm_s8_finish_avx512.h). The limit is the two vector ports: for k = 16 the tile's 96 vpdpbusd
// take 48 cycles and its bytes another 48.
#include <immintrin.h>

#include "cpu/gemm_s8_finish_avx512.h"
#include "cpu/gemm_s8_vnni512.h"
#include "ops/gemm_s8_fused.h"

namespace lepton {
namespace {

// Cache lines that are brought into L2 on the way, evenly over all tiles, at the most one for every
// two quads of k: faster they would take the buffers through which the panel itself arrives.
class Lines {
 public:
  Lines(const GemmS8FusedParams& params, size_t tiles)
      : at_(reinterpret_cast<const char*>(params.next)), left_(params.next_lines) {
    const size_t share = (left_ + tiles - 1) / tiles, steps = params.k / (2 * kKr);
    inside_ = share < steps ? share : steps;
    before_ = share - inside_;
    if (inside_ > 0) stride_ = (inside_ * kLine + steps - 1) / steps;
  }

  // For the tile to come. Those that its steps are too few for are fetched at once; returns where
  // the others begin and how far a step goes, less than a line if there are more steps: nowhere,
  // once there are none.
  struct Walk {
    const char* at;
    size_t stride;
    void take() {
      _mm_prefetch(at, _MM_HINT_T1);
      at += stride;
    }
  };
  Walk next(const int8_t* resting_place) {
    for (size_t i = 0; i < before_ && left_ > 0; ++i, --left_, at_ += kLine)
      _mm_prefetch(at_, _MM_HINT_T1);
    if (left_ == 0) return {reinterpret_cast<const char*>(resting_place), 0};
    const Walk walk{at_, stride_};
    const size_t taken = left_ < inside_ ? left_ : inside_;
    left_ -= taken;
    at_ += taken * kLine;
    return walk;
  }

 private:
  static constexpr size_t kLine = 64;
  const char* at_;
  size_t left_, inside_, before_, stride_ = 0;
};

template <size_t kRows, size_t kVectors>
__attribute__((always_inline)) inline void start(const Finish& finish,
                                                 __m512i (&sum)[kRows][kVectors]) {
#pragma GCC unroll 4
  for (size_t v = 0; v < kVectors; ++v) {
    const __m512i bias_i32x16 = _mm512_load_si512(finish.bias + v * kNv);
#pragma GCC unroll 12
    for (size_t i = 0; i < kRows; ++i) sum[i][v] = bias_i32x16;
  }
}

// Sums of rows from `row` on.
template <bool kWindows, size_t kRows, size_t kVectors>
__attribute__((always_inline)) inline void multiply(const GemmS8FusedParams& params, size_t row,
                                                    Lines::Walk walk,
                                                    __m512i (&sum)[kRows][kVectors]) {
  constexpr size_t kStep = kVectors * kNv * kKr;
  const int8_t* rhs = params.rhs;
  if constexpr (kWindows) {
    const uint8_t* rows[kRows];
    for (size_t i = 0; i < kRows; ++i) rows[i] = params.windows[row + i];
    for (size_t r = 0, from = 0; r < params.runs; ++r, from += params.pitch) {
      const size_t end = from + params.run;
      size_t p = from;
      for (; p + 2 * kKr <= end; p += 2 * kKr, rhs += 2 * kStep) {
        walk.take();
        step([&](size_t i) { return rows[i] + p; }, rhs, sum);
        step([&](size_t i) { return rows[i] + p + kKr; }, rhs + kStep, sum);
      }
      if (p < end) step([&](size_t i) { return rows[i] + p; }, rhs, sum), rhs += kStep;
    }
  } else {
    const size_t stride = params.lhs_stride;
    const uint8_t* lhs = params.lhs + row * stride;
    size_t p = params.k;
    for (; p >= 2 * kKr; p -= 2 * kKr, lhs += 2 * kKr, rhs += 2 * kStep) {
      walk.take();
      step([&](size_t i) { return lhs + i * stride; }, rhs, sum);
      step([&](size_t i) { return lhs + kKr + i * stride; }, rhs + kStep, sum);
    }
    if (p > 0) step([&](size_t i) { return lhs + i * stride; }, rhs, sum);
  }
}

// Rows from `row` on through memory.
template <bool kWindows, size_t kRows, size_t kVectors>
__attribute__((noinline)) void tile_by_memory(const GemmS8FusedParams& params, const Finish& finish,
                                              size_t row, Lines::Walk walk) {
  alignas(64) int32_t acc[kRows * kVectors * kNv];
  __m512i sum[kRows][kVectors];
  start(finish, sum);
  multiply<kWindows>(params, row, walk, sum);
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v)
      _mm512_store_si512(acc + (i * kVectors + v) * kNv, sum[i][v]);
  finish_rows(params, finish, acc, kVectors, row, kRows);
}

template <bool kWindows, size_t kVectors>
void rows_by_memory(const GemmS8FusedParams& params, const Finish& finish, size_t row, size_t count,
                    Lines::Walk walk) {
  switch (count) {
    case 1: return tile_by_memory<kWindows, 1, kVectors>(params, finish, row, walk);
    case 2: return tile_by_memory<kWindows, 2, kVectors>(params, finish, row, walk);
    case 3: return tile_by_memory<kWindows, 3, kVectors>(params, finish, row, walk);
    case 4: return tile_by_memory<kWindows, 4, kVectors>(params, finish, row, walk);
    case 5: return tile_by_memory<kWindows, 5, kVectors>(params, finish, row, walk);
    case 6: return tile_by_memory<kWindows, 6, kVectors>(params, finish, row, walk);
    default: break;
  }
  if constexpr (kVectors <= 2) {
    switch (count) {
      case 7: return tile_by_memory<kWindows, 7, kVectors>(params, finish, row, walk);
      case 8: return tile_by_memory<kWindows, 8, kVectors>(params, finish, row, walk);
      case 9: return tile_by_memory<kWindows, 9, kVectors>(params, finish, row, walk);
      case 10: return tile_by_memory<kWindows, 10, kVectors>(params, finish, row, walk);
      case 11: return tile_by_memory<kWindows, 11, kVectors>(params, finish, row, walk);
      default: return tile_by_memory<kWindows, 12, kVectors>(params, finish, row, walk);
    }
  }
}

// Not inlined, as GCC unrolls no loops early enough where they stand in another.
template <bool kWindows, size_t kRows, size_t kVectors, Added kAdded, bool kBiased>
__attribute__((noinline)) void tile(const GemmS8FusedParams& params, const Finish& finish,
                                    size_t row, Lines::Walk walk) {
  __m512i sum[kRows][kVectors];
  start(finish, sum);
  multiply<kWindows>(params, row, walk, sum);
  finish_tile<kAdded, kBiased>(params, finish, row, sum);
}

// All rows of a panel, in tiles that are as full as they can be: of 6, two are made of seven or
// eight rows, since a single row would wait for the latency of its sums.
template <bool kWindows, size_t kVectors, bool kInRegisters, Added kAdded, bool kBiased>
void panel(const GemmS8FusedParams& params, const Finish& finish) {
  constexpr size_t kMr = kVectors <= 2 ? 12 : 6;
  Lines lines(params, (params.m + kMr - 1) / kMr);
  size_t row = 0, left = params.m;
  const size_t tail = left % kMr;
  const size_t shared_by_two = kMr == 6 && left > kMr && (tail == 1 || tail == 2) ? kMr + tail : 0;
  for (; left >= kMr && left != shared_by_two; row += kMr, left -= kMr) {
    const Lines::Walk walk = lines.next(params.rhs);
    if constexpr (kInRegisters) {
      tile<kWindows, kMr, kVectors, kAdded, kBiased>(params, finish, row, walk);
    } else {
      tile_by_memory<kWindows, kMr, kVectors>(params, finish, row, walk);
    }
  }
  while (left > 0) {
    const size_t count = left > kMr ? (left + 1) / 2 : left;
    rows_by_memory<kWindows, kVectors>(params, finish, row, count, lines.next(params.rhs));
    row += count;
    left -= count;
  }
}

template <bool kWindows, size_t kVectors>
void finishes(const GemmS8FusedParams& params, const Finish& finish) {
  constexpr Added kNone = Added::kNothing, kU8 = Added::kU8, kS8 = Added::kS8;
  if (!finish.is_plain(params))
    return panel<kWindows, kVectors, false, kNone, false>(params, finish);
  const bool biased = finish.zero_point != 0 || finish.flip != 0;
  if (params.residual == nullptr)
    return biased ? panel<kWindows, kVectors, true, kNone, true>(params, finish)
                  : panel<kWindows, kVectors, true, kNone, false>(params, finish);
  if (params.r_signed)
    return biased ? panel<kWindows, kVectors, true, kS8, true>(params, finish)
                  : panel<kWindows, kVectors, true, kS8, false>(params, finish);
  return biased ? panel<kWindows, kVectors, true, kU8, true>(params, finish)
                : panel<kWindows, kVectors, true, kU8, false>(params, finish);
}

template <bool kWindows>
void columns(const GemmS8FusedParams& params) {
  const Finish finish(params);
  switch (params.width / kNv) {
    case 1: return finishes<kWindows, 1>(params, finish);
    case 2: return finishes<kWindows, 2>(params, finish);
    case 3: return finishes<kWindows, 3>(params, finish);
    default: return finishes<kWindows, 4>(params, finish);
  }
}

}  // namespace

void gemm_s8_fused_6x64c4_avx512vnni(const GemmS8FusedParams& params) {
  params.windows != nullptr ? columns<true>(params) : columns<false>(params);
}

}  // namespace lepton
