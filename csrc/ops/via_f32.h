// float16 and bfloat16 for operators whose kernels know float32: inputs are widened into scratch,
// the operator runs there, results are rounded once at the end.
#pragma once

#include <memory>

#include "ops/op.h"

namespace lepton {

// True when an input or output of the step is float16 or bfloat16.
bool has_half_floats(const StepDesc& step);

// The operator that `inner` makes of this step with every such operand as float32.
Status make_via_f32(const StepDesc& step, OpFactory inner, std::unique_ptr<Op>* op);

}  // namespace lepton
