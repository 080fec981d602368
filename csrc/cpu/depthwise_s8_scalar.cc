// Depthwise convolution, 8-bit integers, portable: the definition of the packed layout in code.
#include "ops/depthwise.h"

namespace lepton {
namespace {

template <typename T>
uint32_t sum_one(const DepthwiseS8Params& p, size_t block, size_t lane, size_t c) {
  const size_t pairs = (p.taps + 1) / 2;
  const int16_t* w = p.weights + (block * pairs * kDepthwiseBlock + lane) * 2;
  uint32_t sum = static_cast<uint32_t>(p.bias[c]);
  for (size_t t = 0; t < p.taps; ++t) {
    const T x = static_cast<T>(p.input[t][c]);
    sum += static_cast<uint32_t>(int32_t{x} * w[t / 2 * 2 * kDepthwiseBlock + t % 2]);
  }
  return sum;
}

template <typename T>
void run(const DepthwiseS8Params& p) {
  for (size_t i = 0; i < p.pixels; ++i) {
    for (size_t first = 0; first < p.channels; first += kDepthwiseBlock) {
      for (size_t lane = 0; lane < kDepthwiseBlock; ++lane) {
        const size_t c = first + kDepthwiseLane[lane];
        if (c >= p.channels) continue;
        const uint32_t sum = sum_one<T>(p, first / kDepthwiseBlock, lane, c);
        p.acc[i * p.acc_stride + c] = static_cast<int32_t>(sum);
      }
    }
    for (size_t t = 0; t < p.taps; ++t) p.input[t] += p.input_step[t];
  }
}

}  // namespace

void depthwise_s8_scalar(const DepthwiseS8Params& p) {
  if (p.input_signed)
    run<int8_t>(p);
  else
    run<uint8_t>(p);
}

}  // namespace lepton
