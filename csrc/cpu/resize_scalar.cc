// Reference of the resize kernels, one element at a time.
#include <cstddef>
#include <cstdint>

#include "ops/resize.h"

namespace lepton {

void resize_blend_f32_scalar(const ResizeBlendParams& p) {
  for (size_t i = 0; i < p.n; ++i) {
    if (p.taps == 2) {
      p.dst[i] = p.rows[0][i] + p.weights[1] * (p.rows[1][i] - p.rows[0][i]);
      continue;
    }
    float sum = p.weights[0] * p.rows[0][i];
    for (size_t t = 1; t < p.taps; ++t) sum += p.weights[t] * p.rows[t][i];
    p.dst[i] = sum;
  }
}

void resize_gather_f32_scalar(const ResizeGatherParams& p) {
  for (size_t i = 0; i < p.n; ++i) {
    const float first = p.src[p.index[i]];
    if (p.taps == 2) {
      p.dst[i] = first + p.weights[p.stride + i] * (p.src[p.index[p.stride + i]] - first);
      continue;
    }
    float sum = p.weights[i] * first;
    for (size_t t = 1; t < p.taps; ++t)
      sum += p.weights[t * p.stride + i] * p.src[p.index[t * p.stride + i]];
    p.dst[i] = sum;
  }
}

}  // namespace lepton
