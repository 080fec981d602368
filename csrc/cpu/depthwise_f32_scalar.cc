// Depthwise convolution, float32, portable: one output value at a time.
#include "ops/depthwise.h"

namespace lepton {

void depthwise_f32_scalar(const DepthwiseF32Params& p) {
  for (size_t i = 0; i < p.pixels; ++i) {
    for (size_t c = 0; c < p.channels; ++c) {
      float sum = p.bias != nullptr ? p.bias[c] : 0.f;
      for (size_t t = 0; t < p.taps; ++t) {
        sum += p.input[t][c] * p.weights[t * p.channels + c];
      }
      if (p.residual != nullptr) sum += p.residual[i * p.residual_step + c];
      sum = sum < p.min ? p.min : sum;
      p.dst[i * p.dst_step + c] = sum > p.max ? p.max : sum;
    }
    for (size_t t = 0; t < p.taps; ++t) p.input[t] += p.input_step[t];
  }
}

}  // namespace lepton
