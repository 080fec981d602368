// If, Loop and Scan: steps whose bodies are plans of their own. A body's inputs are those that ONNX
// gives it, then the tensors it reads from around it; the step's inputs end with the latter, too.
#pragma once

#include "runtime/executor.h"

namespace lepton {

// Makes the operator of a step with bodies, whose plans get executors with the same options.
Status make_control_flow(const PlanStep& step, const StepDesc& desc, const ExecutorOptions& options,
                         std::unique_ptr<Op>* op);

}  // namespace lepton
