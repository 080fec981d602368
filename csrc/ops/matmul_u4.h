// The form of "lepton.MatMulNBits" whose sums are integers.
#pragma once

#include <memory>

#include "ops/op.h"

namespace lepton {

Status make_matmul_u4(const StepDesc& step, std::unique_ptr<Op>* op);

}  // namespace lepton
