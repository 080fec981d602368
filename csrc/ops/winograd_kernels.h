// The list of Winograd transforms. Their contract is in winograd_f32.h.
#pragma once

#include "ops/kernel_list.h"
#include "ops/winograd_f32.h"

namespace lepton {

struct WinogradF32KernelInfo {
  const char* name;
  Isa isa;
  size_t lanes;  // channels of a vector
  WinogradKernels (*run)();
};

KernelList<WinogradF32KernelInfo> winograd_f32_kernels();

// The best transforms that run here under the cap and whose vectors fill panels of this width.
WinogradKernels best_winograd_f32(Isa max, size_t width);

}  // namespace lepton
