// The list of Winograd transforms. Their contracts are in winograd_f32.h and winograd_s8.h.
#pragma once

#include "ops/kernel_list.h"
#include "ops/winograd_f32.h"
#include "ops/winograd_s8.h"

namespace lepton {

struct WinogradF32KernelInfo {
  const char* name;
  Isa isa;
  size_t lanes;  // channels of a vector
  WinogradKernels (*run)();
};
struct WinogradS8KernelInfo {
  const char* name;
  Isa isa;
  WinogradS8Kernels (*run)();
};

KernelList<WinogradF32KernelInfo> winograd_f32_kernels();
KernelList<WinogradS8KernelInfo> winograd_s8_kernels();

// The best transforms that run here under the cap and whose vectors fill panels of this width.
WinogradKernels best_winograd_f32(Isa max, size_t width);
WinogradS8Kernels best_winograd_s8(Isa max);

}  // namespace lepton
