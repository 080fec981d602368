#include "ops/window_kernels.h"

namespace lepton {

#define LEPTON_DEPTHWISE_F32(name, isa) void name(const DepthwiseF32Params&);
#include "ops/depthwise_f32_kernels.inc"
#undef LEPTON_DEPTHWISE_F32
#define LEPTON_DEPTHWISE_S8(name, isa) void name(const DepthwiseS8Params&);
#include "ops/depthwise_s8_kernels.inc"
#undef LEPTON_DEPTHWISE_S8
#define LEPTON_POOL(name, isa, kind) void name(const PoolParams&);
#include "ops/pool_kernels.inc"
#undef LEPTON_POOL

namespace {

const DepthwiseF32KernelInfo kDepthwiseF32[] = {
#define LEPTON_DEPTHWISE_F32(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/depthwise_f32_kernels.inc"
#undef LEPTON_DEPTHWISE_F32
};
const DepthwiseS8KernelInfo kDepthwiseS8[] = {
#define LEPTON_DEPTHWISE_S8(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/depthwise_s8_kernels.inc"
#undef LEPTON_DEPTHWISE_S8
};
const PoolKernelInfo kPool[] = {
#define LEPTON_POOL(name, isa, kind) \
  {#name, Isa::k_##isa, PoolKind::kind, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/pool_kernels.inc"
#undef LEPTON_POOL
};

template <typename Info, size_t kCount>
KernelList<Info> list_of(const Info (&lines)[kCount]) {
  return {lines, kCount};
}

}  // namespace

KernelList<DepthwiseF32KernelInfo> depthwise_f32_kernels() { return list_of(kDepthwiseF32); }
KernelList<DepthwiseS8KernelInfo> depthwise_s8_kernels() { return list_of(kDepthwiseS8); }
KernelList<PoolKernelInfo> pool_kernels() { return list_of(kPool); }

PoolKernel best_pool(PoolKind kind, Isa max) {
  for (const PoolKernelInfo& info : kPool)
    if (info.kind == kind && is_within(info.isa, max) &&
        KernelList<PoolKernelInfo>::is_runnable(info))
      return info.run;
  return nullptr;
}

void pack_depthwise_s8(const int16_t* w, size_t channels, size_t taps, int16_t* packed) {
  const size_t pairs = (taps + 1) / 2;
  for (size_t first = 0; first < channels; first += kDepthwiseBlock) {
    for (size_t pair = 0; pair < pairs; ++pair) {
      for (size_t lane = 0; lane < kDepthwiseBlock; ++lane) {
        const size_t c = first + kDepthwiseLane[lane];
        for (size_t t = 2 * pair; t < 2 * pair + 2; ++t)
          *packed++ = c < channels && t < taps ? w[t * channels + c] : int16_t{0};
      }
    }
  }
}

}  // namespace lepton
