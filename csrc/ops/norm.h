// norm: the float32 passes of normalisations over n contiguous values.
//
//   sum:                 Σ x
//   sum_square:          Σ (x − mean)²
//   affine:              y = x · scale + shift
//   normalize:           y = (x − mean) · inverse · gamma[i] + beta[i]     beta may be null (zeros)
//
// Sums run over blocks of 512 values in float32, blocks add up in float64, in an order that depends
// on n alone. y may be x.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct NormalizeParams {
  const float* x;
  float* y;
  size_t n;
  float mean, inverse;
  const float* gamma;
  const float* beta;
};

struct NormKernels {
  double (*sum)(const float* x, size_t n);
  double (*sum_square)(const float* x, size_t n, float mean);
  void (*affine)(const float* x, float* y, size_t n, float scale, float shift);
  void (*normalize)(const NormalizeParams&);
};

#define LEPTON_NORM(name, isa) NormKernels name();
#include "ops/norm_kernels.inc"
#undef LEPTON_NORM

}  // namespace lepton
