// The operator around a program: lepton.Elementwise, Cast, QuantizeLinear and DequantizeLinear are
// programs that differ in how they read their step and in the shapes under which inputs broadcast.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "ops/elementwise_program.h"
#include "ops/op.h"

namespace lepton {

class ElementwiseOp : public Op {
 public:
  // Parses `text` over the step's inputs. Compute::kI64 becomes kU64 when a uint64 is read.
  static Status create(const StepDesc& step, std::string_view text, Compute compute,
                       std::unique_ptr<ElementwiseOp>* op);
  Status bind(BindContext& context) const override;

 protected:
  ElementwiseOp() = default;
  Status init(const StepDesc& step, std::string_view text, Compute compute);
  // The shapes of the inputs as the program sees them.
  int num_inputs() const { return program_.num_inputs; }
  virtual Status input_shapes(const BindContext& context, std::vector<Shape>* shapes) const;

 private:
  Program program_;
  std::vector<DType> stored_;
  DType out_ = DType::kUndefined;
  Isa isa_ = Isa::k_scalar;
};

// The compute type in which values of this dtype are exact.
Compute compute_for(DType dtype);

}  // namespace lepton
