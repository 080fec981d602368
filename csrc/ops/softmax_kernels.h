// Chooses the softmax kernels.
#pragma once

#include "core/isa.h"
#include "ops/softmax.h"

namespace lepton {

// The best kernels within the cap.
SoftmaxKernels find_softmax(Isa max);

}  // namespace lepton
