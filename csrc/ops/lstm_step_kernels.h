// Which lstm_step kernel serves a matrix packed for gemm_s8. Contract: lstm_step.h.
#pragma once

#include "ops/gemm.h"
#include "ops/lstm_step.h"

namespace lepton {

struct LstmStepKernelInfo {
  const char* name;
  Isa isa;
  GemmS8Form form;
  int nr;
  LstmStepKernel run;
  size_t units() const { return static_cast<size_t>(nr) / 4; }  // of a panel
};

KernelList<LstmStepKernelInfo> lstm_step_kernels();

// The kernel that reads panels packed for `gemm` and has the bits of the lstm_cell kernel of a
// target capped at `max`, which need not be this machine; or null.
const LstmStepKernelInfo* find_lstm_step(const GemmS8KernelInfo& gemm, Isa max);

}  // namespace lepton
