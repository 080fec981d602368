// Chooses the norm kernels.
#pragma once

#include "core/isa.h"
#include "ops/norm.h"

namespace lepton {

// The best kernels within the cap.
NormKernels find_norm(Isa max);

// Elements of a normalisation worth a task of their own.
constexpr int64_t kNormGrain = 1 << 14;

// 1 / sqrt(variance + epsilon) in float64, then rounded.
float inverse_deviation(double variance, float epsilon);

}  // namespace lepton
