// Kernel lists and packers of the channels-last window families: depthwise convolution and pooling.
// The contracts of the kernels themselves are in depthwise.h and pool.h.
#pragma once

#include "core/status.h"
#include "ops/depthwise.h"
#include "ops/depthwise_quads.h"
#include "ops/kernel_list.h"
#include "ops/pool.h"

namespace lepton {

struct DepthwiseF32KernelInfo {
  const char* name;
  Isa isa;
  DepthwiseF32Kernel run;
};
struct DepthwiseS8KernelInfo {
  const char* name;
  Isa isa;
  DepthwiseS8Kernel run;
};
struct DepthwiseQuadsKernelInfo {
  const char* name;
  Isa isa;
  DepthwiseQuadsKernel run;
};
struct PoolKernelInfo {
  const char* name;
  Isa isa;
  PoolKind kind;
  PoolKernel run;
};

KernelList<DepthwiseF32KernelInfo> depthwise_f32_kernels();
KernelList<DepthwiseS8KernelInfo> depthwise_s8_kernels();
KernelList<DepthwiseQuadsKernelInfo> depthwise_quads_kernels();
KernelList<PoolKernelInfo> pool_kernels();

// The kernel for windows three taps wide beside `kernel`, or null.
DepthwiseQuadsKernel find_depthwise_quads(const DepthwiseS8KernelInfo& kernel);

// The best kernel of a kind that runs here under the cap; never null.
PoolKernel best_pool(PoolKind kind, Isa max);

}  // namespace lepton
