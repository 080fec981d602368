// The list of gather_rows kernels. Contract: gather_rows.h.
#pragma once

#include "ops/gather_rows.h"
#include "ops/kernel_list.h"

namespace lepton {

struct GatherRowsKernelInfo {
  const char* name;
  Isa isa;
  GatherRowsKernel run;
};

KernelList<GatherRowsKernelInfo> gather_rows_kernels();
// The best one that runs here under the cap; never null.
GatherRowsKernel best_gather_rows(Isa max);

}  // namespace lepton
