#include "ops/winograd_kernels.h"

namespace lepton {
namespace {

const WinogradF32KernelInfo kInfo[] = {
#define LEPTON_WINOGRAD_F32(name, isa, lanes) \
  {#name, Isa::k_##isa, lanes, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/winograd_f32_kernels.inc"
#undef LEPTON_WINOGRAD_F32
};

const WinogradS8KernelInfo kS8Info[] = {
#define LEPTON_WINOGRAD_S8(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/winograd_s8_kernels.inc"
#undef LEPTON_WINOGRAD_S8
};

}  // namespace

KernelList<WinogradF32KernelInfo> winograd_f32_kernels() {
  return {kInfo, sizeof kInfo / sizeof kInfo[0]};
}

KernelList<WinogradS8KernelInfo> winograd_s8_kernels() {
  return {kS8Info, sizeof kS8Info / sizeof kS8Info[0]};
}

WinogradKernels best_winograd_f32(Isa max, size_t width) {
  const auto list = winograd_f32_kernels();
  for (const WinogradF32KernelInfo& info : list)
    if (is_within(info.isa, max) && list.is_runnable(info) && width % info.lanes == 0)
      return info.run();
  return {};
}

WinogradS8Kernels best_winograd_s8(Isa max) { return winograd_s8_kernels().best(max)->run(); }

}  // namespace lepton
