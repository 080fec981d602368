// Rotary position embedding of one head of one row: pairs (a, b) of x turned by the angle of their
// position.
//
//   y.a = cos[i] * x.a - sin[i] * x.b
//   y.b = sin[i] * x.a + cos[i] * x.b      i < half
//
// The halves of a pair lie `half` apart, or beside each other when interleaved. y may be x.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct RotaryKernels {
  void (*halves)(const float* x, const float* cos, const float* sin, size_t half, float* y);
  void (*interleaved)(const float* x, const float* cos, const float* sin, size_t half, float* y);
};

#define LEPTON_ROTARY(name, isa) RotaryKernels name();
#include "ops/rotary_kernels.inc"
#undef LEPTON_ROTARY

}  // namespace lepton
