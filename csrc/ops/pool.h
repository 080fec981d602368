// Pooling over channels-last tensors: a run of output pixels of one output row.
//
//   kMaxF32, kMaxU8, kMaxS8:  dst[i][c] = max over t of x_t[i][c]; −infinity, 0, −128 without taps
//   kAverageF32:              dst[i][c] = (sum over t of x_t[i][c]) / divisor, taps in order
//   kSumU8, kSumS8:           dst[i][c] = bias + sum over t of x_t[i][c], int32
//
// x_t[i] = input[t] + i·input_step[t] (in elements) points at the `channels` values that tap t
// reads for pixel i; taps in the padding are not listed. Exactly `channels` elements are read from
// each tap and written per pixel; dst rows are dst_step elements apart and overlap no input. Maxima
// compare x > m, so a NaN input is passed over. taps < 2^23, so sums do not overflow.
//
// Quantised averages (lepton.QLinearAveragePool, lepton.QLinearReduceMean) are kSum* with
// bias = −(listed taps)·x_zero_point, then the shared requantisation (epilogue.h, kRequantize) with
//   scale = x_scale / (y_scale · float(count)), computed in f32 in this order,
// where count is the number of averaged cells: the listed taps, or with count_include_pad those
// inside the padded input. Equal on every ISA and thread count, and within one step of
// QuantizeLinear(AveragePool(DequantizeLinear(x))).
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

enum class PoolKind : uint8_t { kMaxF32, kMaxU8, kMaxS8, kAverageF32, kSumU8, kSumS8 };

struct PoolParams {
  size_t channels, taps, pixels;
  const void* const* input;     // [taps]
  const ptrdiff_t* input_step;  // [taps]
  float divisor;                // kAverageF32
  int32_t bias;                 // kSum*
  void* dst;
  size_t dst_step;
};
using PoolKernel = void (*)(const PoolParams&);

constexpr int64_t kMaxPoolTaps = int64_t{1} << 23;

}  // namespace lepton
