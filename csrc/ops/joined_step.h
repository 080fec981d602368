// Operators bound inside another one, to a part of what that one works on.
//
// "A+B+C" is a step that runs the steps A, B and C, block by block:
//
//   inputs, outputs: what the steps read from outside and give to it
//   rows      for each input, 1: every block sees a part of it; 0: all of it
//   values    dtypes of what the steps make, in the order of making
//   results   for each output, its value
//   i.in, i.out  operands of step i: an input, or the number of inputs + a value; -1: omitted
//   i.NAME    its attributes
//   The steps' operators and kernels, each joined by '+', are the operator and kernel of this one.
#pragma once

#include <memory>
#include <string>
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

constexpr size_t kMaxJoinedOperands = 48;

struct JoinedStep {
  std::string_view name;  // of the operator
  std::unique_ptr<Op> op;
  Attrs attrs;
  std::vector<int> in, out;
};

// The steps of "A+B+C", made and checked.
class JoinedSteps {
 public:
  // joins: whether an operator may be one of them.
  Status init(const StepDesc& step, bool (*joins)(std::string_view));

  size_t num_inputs() const { return cut.size(); }
  // The output that is this value, or -1.
  int result_of(size_t value) const;

  std::vector<JoinedStep> steps;
  std::vector<bool> cut;        // per input
  std::vector<DType> values;    // per value
  std::vector<size_t> results;  // per output

 private:
  Status init_step(const StepDesc& whole, size_t index, std::string_view op,
                   std::string_view kernel);
  Status read_operands(const StepDesc& whole, const std::string& name, size_t made,
                       std::vector<int>* operands) const;
};

}  // namespace lepton
