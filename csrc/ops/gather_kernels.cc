#include "ops/gather_kernels.h"

namespace lepton {

#define LEPTON_GATHER_ROWS(name, isa) void name(const GatherRowsParams&);
#include "ops/gather_rows_kernels.inc"
#undef LEPTON_GATHER_ROWS

namespace {

const GatherRowsKernelInfo kInfo[] = {
#define LEPTON_GATHER_ROWS(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/gather_rows_kernels.inc"
#undef LEPTON_GATHER_ROWS
};

}  // namespace

KernelList<GatherRowsKernelInfo> gather_rows_kernels() {
  return {kInfo, sizeof kInfo / sizeof kInfo[0]};
}

GatherRowsKernel best_gather_rows(Isa max) { return gather_rows_kernels().best(max)->run; }

}  // namespace lepton
