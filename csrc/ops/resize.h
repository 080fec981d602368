// Resize kernels: one weighted sum of float32 neighbours, in two access patterns.
//
//   blend:   dst[i] = sum over t of weights[t] · rows[t][i]                             i < n
//   gather:  dst[i] = sum over t of weights[t·stride + i] · src[index[t·stride + i]]    i < n
//
// Sums run over t in order, without FMA; two taps are r0 + w1 · (r1 − r0) instead, which keeps
// equal neighbours exact (their w0 = 1 − w1 is not read). So every kernel gives the same bits, and
// integers made from them are the same on every machine. No alignment; nothing beyond n is read or
// written; dst overlaps no operand. taps >= 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct ResizeBlendParams {
  size_t n;
  size_t taps;
  const float* const* rows;
  const float* weights;
  float* dst;
};

struct ResizeGatherParams {
  size_t n;
  size_t taps;
  size_t stride;
  const int32_t* index;
  const float* weights;
  const float* src;
  float* dst;
};

using ResizeBlendKernel = void (*)(const ResizeBlendParams&);
using ResizeGatherKernel = void (*)(const ResizeGatherParams&);

}  // namespace lepton
