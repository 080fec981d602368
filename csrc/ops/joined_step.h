// An operator bound inside another one, to a part of what that one works on.
#pragma once

#include <utility>
#include <vector>

#include "ops/op.h"

namespace lepton {

// What the inner operator sees while it is bound: the operands it is given, and no more. It must
// compute all its outputs.
class JoinedBinder final : public BindContext {
 public:
  JoinedBinder(std::vector<TensorInfo> inputs, std::vector<DType> outputs, int threads)
      : inputs_(std::move(inputs)), outputs_(std::move(outputs)), threads_(threads) {
    shapes_.resize(outputs_.size());
  }
  int num_inputs() const override { return static_cast<int>(inputs_.size()); }
  const TensorInfo& input(int i) const override { return inputs_[static_cast<size_t>(i)]; }
  int num_outputs() const override { return static_cast<int>(outputs_.size()); }
  DType output_dtype(int i) const override { return outputs_[static_cast<size_t>(i)]; }
  int threads() const override { return threads_; }
  bool require_value(int i) override { return input(i).data != nullptr; }
  Status set_output(int i, const Shape& shape) override {
    shapes_[static_cast<size_t>(i)] = shape;
    return {};
  }
  Status set_alias(int, int, const Shape&) override { return refused(); }
  Status set_known(int, const Shape&, const void*, size_t) override { return refused(); }
  void allow_in_place(int, int) override {}
  void set_scratch(size_t bytes) override { scratch = bytes; }
  void set_run(RunFn fn) override { run = std::move(fn); }
  void set_dynamic_run(DynamicFn) override {}

  const Shape& shape(size_t i) const { return shapes_[i]; }
  RunFn run;
  size_t scratch = 0;

 private:
  static Status refused() { return internal_error("a joined step does not compute its result"); }
  std::vector<TensorInfo> inputs_;
  std::vector<DType> outputs_;
  std::vector<Shape> shapes_;
  const int threads_;
};

}  // namespace lepton
