#include "ops/rnn_cell.h"

namespace lepton {
namespace {

#define LEPTON_LSTM_STEP(name, isa, form, nr) \
  {#name, Isa::k_##isa, GemmS8Form::form, nr, LEPTON_KERNEL_POINTER(isa, name)},
const LstmStepKernelInfo kLstmSteps[] = {
#include "ops/lstm_step_kernels.inc"
};
#undef LEPTON_LSTM_STEP

}  // namespace

KernelList<LstmStepKernelInfo> lstm_step_kernels() {
  return {kLstmSteps, sizeof kLstmSteps / sizeof kLstmSteps[0]};
}

const LstmStepKernelInfo* find_lstm_step(const GemmS8KernelInfo& gemm, Isa max) {
  for (const LstmStepKernelInfo& info : kLstmSteps)
    if (info.isa == gemm.isa && info.form == gemm.form && info.nr == gemm.nr &&
        lstm_cell_isa(info.isa) == lstm_cell_isa(max))
      return &info;
  return nullptr;
}

}  // namespace lepton
