// One body of If, Loop or Scan, run again and again: remembers the context of the last shapes.
#pragma once

#include <memory>
#include <vector>

#include "runtime/executor.h"

namespace lepton {

// Bytes of a tensor of this shape.
size_t bytes_of(const Shape& shape, DType dtype);

class BodyRun {
 public:
  BodyRun(Executor& executor, DynamicArgs& args);
  BodyRun(const BodyRun&) = delete;
  BodyRun& operator=(const BodyRun&) = delete;
  ~BodyRun();

  size_t num_outputs() const { return spare_.size(); }
  DType output_dtype(size_t i) const;

  // Inputs of the next run, in order: clear(), then one call for each.
  void clear();
  void add_input(const Shape& shape, const void* data);
  // Binds to the shapes of the inputs, if the last ones were others.
  Status bind();
  // Shape of an output for the shapes bound last, or null when only a run tells.
  const Shape* output_shape(size_t i) const { return context_->output_shape(static_cast<int>(i)); }
  // Where the next run writes output i, whose shape is known.
  void write_output(size_t i, void* to) { to_[i] = to; }
  Status run();
  // Output i of the last run: dtype, shape, contents.
  const TensorInfo& output(size_t i) const { return context_->output(static_cast<int>(i)); }

 private:
  Executor& executor_;
  DynamicArgs& args_;
  std::unique_ptr<Context> context_;
  std::vector<Shape> shapes_;
  std::vector<const void*> inputs_;
  std::vector<void*> to_;
  std::vector<Buffer> spare_;  // memory of outputs that nobody gave a place
};

// Gives output `index` of the step memory and copies a tensor into it.
Status store_output(DynamicArgs& args, int index, DType dtype, const Shape& shape,
                    const void* data);

}  // namespace lepton
