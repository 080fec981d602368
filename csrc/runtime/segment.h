// A stretch of a plan that was bound in one go: private to Context.
#pragma once

#include <vector>

#include "runtime/branches.h"
#include "runtime/context.h"
#include "runtime/pace.h"

namespace lepton {

struct Context::Segment {
  struct Step {
    RunFn run;
    int plan_step;
    int first_pointer;  // inputs, then outputs
    size_t scratch;
    size_t scratch_offset;
    Pace pace;
    Ahead ahead = {};
  };
  struct Patch {
    int pointer;
    int root;
  };
  struct ValueRead {
    int tensor;
    std::vector<std::byte> contents;
  };
  struct ShapeRead {
    int tensor;
    Shape shape;
  };

  int first = 0, last = 0;  // plan steps [first, last)
  std::vector<Step> steps;
  std::vector<Branches> branches;
  std::vector<void*> pointers;
  std::vector<Patch> patches;  // pointers that move from run to run
  DynamicFn dynamic;           // set when step last - 1 is dynamic
  Buffer arena;
  std::vector<Buffer> known;  // contents of values computed at bind
  size_t live_bytes = 0;      // of tensors and scratch at once, at most
  // What the binding depended on besides the graph input shapes.
  std::vector<ShapeRead> shapes_read;
  std::vector<ValueRead> values_read;

  // Empty again; arena and vectors keep their memory.
  void reset(int first_step) {
    first = last = first_step;
    steps.clear();
    branches.clear();
    pointers.clear();
    patches.clear();
    dynamic = nullptr;
    known.clear();
    live_bytes = 0;
    shapes_read.clear();
    values_read.clear();
  }
};

inline size_t bytes_of(const TensorInfo& t) {
  return static_cast<size_t>(t.shape.elements()) * size_of(t.dtype);
}

}  // namespace lepton
