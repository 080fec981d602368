// What Loop and Scan keep between iterations: tensors that are carried on, and outputs that are
// stacked.
#pragma once

#include "runtime/body.h"

namespace lepton {

// Carried tensors. Each has two buffers: one iteration reads from one and writes to the other.
class Carried {
 public:
  // Starts with tensors that belong to the step's inputs.
  void add(const TensorInfo& start) { current_.push_back(start), buffers_.emplace_back(); }
  size_t size() const { return current_.size(); }
  const TensorInfo& operator[](size_t i) const { return current_[i]; }

  void give_to(BodyRun& body) const;
  // Before and after a run of the body, whose outputs from `first` on continue these tensors.
  Status place_outputs(BodyRun& body, size_t first);
  Status accept(const BodyRun& body, size_t first);
  // Writes the tensors as the step's outputs, from 0 on.
  Status store(DynamicArgs& args, const std::vector<bool>& wanted) const;

 private:
  struct Buffers {
    Buffer read, write;
  };
  std::vector<TensorInfo> current_;
  std::vector<Buffers> buffers_;
};

// A scan output: slices of one shape along a new axis.
class Stack {
 public:
  Stack(DType dtype, int64_t axis, bool reversed)
      : dtype_(dtype), axis_(axis), reversed_(reversed) {}

  // Appends a slice, which must have the shape of the first one.
  Status push(const TensorInfo& slice);
  // Writes the whole as output `index`. `empty` is the shape of a slice when there was none.
  Status store(DynamicArgs& args, int index, const Shape& empty) const;

 private:
  DType dtype_;
  int64_t axis_;
  bool reversed_;
  Shape shape_;
  int64_t count_ = 0;
  size_t used_ = 0;
  Buffer memory_;
};

}  // namespace lepton
