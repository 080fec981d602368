// softmax: y = exp(x − max) / sum, or with `log` x − max − log(sum), over n values.
//
//   row:      n contiguous values
//   columns:  `width` <= 64 independent columns of n values, `stride` elements from row to row
//
// y may be x. NaN makes the whole result NaN; n >= 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

constexpr size_t kSoftmaxWidth = 64;

struct SoftmaxKernels {
  void (*row)(const float* x, float* y, size_t n, bool log);
  void (*columns)(const float* x, float* y, size_t n, size_t stride, size_t width, bool log);
};

#define LEPTON_SOFTMAX(name, isa) SoftmaxKernels name();
#include "ops/softmax_kernels.inc"
#undef LEPTON_SOFTMAX

}  // namespace lepton
