// Depthwise convolution, 8-bit integers, portable: the definition of the packed layout in code.
#include <cmath>

#include "ops/depthwise.h"

namespace lepton {
namespace {

template <typename T>
int32_t sum_one(const DepthwiseS8Params& p, size_t block, size_t lane, size_t c) {
  const size_t pairs = (p.taps + 1) / 2;
  const int16_t* w = p.weights + (block * pairs * kDepthwiseBlock + lane) * 2;
  uint32_t sum = static_cast<uint32_t>(p.bias[block * kDepthwiseBlock + lane]);
  for (size_t t = 0; t < p.taps; ++t) {
    const T x = static_cast<T>(p.input[t][c]);
    sum += static_cast<uint32_t>(int32_t{x} * w[t / 2 * 2 * kDepthwiseBlock + t % 2]);
  }
  return static_cast<int32_t>(sum);
}

// Clamped while still float, as the other kernels do; NaN gives lo.
uint8_t requantized(const DepthwiseS8Params& p, int32_t sum, float scale) {
  const float least = static_cast<float>(p.lo - p.zero_point);
  const float most = static_cast<float>(p.hi - p.zero_point);
  float v = static_cast<float>(sum) * scale;
  v = v > least ? v : least;
  v = v < most ? v : most;
  return static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(v)) + p.zero_point);
}

template <typename T>
void run_pixel(const DepthwiseS8Params& p, size_t i) {
  for (size_t first = 0; first < p.channels; first += kDepthwiseBlock) {
    for (size_t lane = 0; lane < kDepthwiseBlock; ++lane) {
      const size_t c = first + kDepthwiseLane[lane];
      if (c >= p.channels) continue;
      const int32_t sum = sum_one<T>(p, first / kDepthwiseBlock, lane, c);
      if (p.acc != nullptr)
        p.acc[i * p.acc_stride + c] = sum;
      else
        p.dst[i * p.dst_step + c] = requantized(p, sum, p.scale[first + lane]);
    }
  }
}

}  // namespace

void depthwise_s8_scalar(const DepthwiseS8Params& p) {
  for (size_t i = 0; i < p.pixels; ++i) {
    p.input_signed ? run_pixel<int8_t>(p, i) : run_pixel<uint8_t>(p, i);
    for (size_t t = 0; t < p.taps; ++t) p.input[t] += p.input_step[t];
  }
}

}  // namespace lepton
