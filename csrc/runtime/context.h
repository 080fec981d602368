// A Context is a plan bound to concrete input shapes: closures, one arena, resolved pointers. It
// serves one run at a time; the Executor keeps several.
//
// Binding walks the steps in order. Small tensors that derive from shapes are computed on the way,
// by running their ordinary closures at once. Where a shape depends on data (a dynamic step, or a
// step that needs the value of a computed tensor) the walk stops: what is bound so far is a
// segment, and the next one is bound when a run gets there. A later run with the same shapes and
// values reuses it.
#pragma once

#include <memory>
#include <vector>

#include "runtime/memory.h"
#include "runtime/plan.h"

namespace lepton {

class Executor;

// Asked between steps; true stops the run with Code::kInterrupted.
struct Interrupt {
  bool (*requested)(void* context) = nullptr;
  void* context = nullptr;
};

class Context {
 public:
  explicit Context(const Executor& executor);
  ~Context();

  // May be called again for other shapes: the memory there is serves anew.
  Status bind(const std::vector<Shape>& input_shapes);
  const std::vector<Shape>& input_shapes() const { return input_shapes_; }

  // Shape of an output when it is known before running, else null.
  const Shape* output_shape(int i) const;

  // inputs[i], outputs[i]: contiguous memory; outputs[i] is null where output_shape(i) is, and may
  // be null elsewhere only if that output has no elements. step_times, unless null, has a place for
  // every step of the plan and gets the nanoseconds of those that ran natively.
  Status run(const void* const* inputs, void* const* outputs, const Interrupt& interrupt,
             int64_t* step_times = nullptr);

  // After run: dtype, shape and (for outputs that were not written to the caller's memory) data,
  // valid until the next run.
  const TensorInfo& output(int i) const;

  // Bytes of arena and scratch, over all segments.
  size_t arena_bytes() const;
  // The least that any layout needs: of what is alive at once, the most.
  size_t live_bytes() const;

 private:
  struct Segment;
  class Binder;
  class DynamicCall;
  friend class Binder;

  enum class Home : uint8_t { kNone, kFixed, kArena, kInput, kOutput, kDynamic };
  struct Slot {
    TensorInfo info;  // data is set when the contents are known at bind
    Home home = Home::kNone;
    int root = -1;            // the tensor whose memory this one is (itself unless an alias)
    int index = 0;            // input or output position for kInput, kOutput
    int live_until = -1;      // roots: last step that reads any alias
    size_t bytes = 0;         // roots
    void* pointer = nullptr;  // roots: where it is now
  };

  Status bind_segment(int first, bool values_known);
  Status layout(Segment& segment);
  void find_branches(Segment& segment);
  std::vector<size_t> add_scratch(const Segment& segment, std::vector<Lifetime>* lifetimes) const;
  void resolve_pointers(Segment& segment);
  void look_ahead(Segment& segment) const;
  void give_outputs_to_caller(Segment& segment);
  Status ensure_segment(size_t index);
  bool is_current(const Segment& segment) const;
  class Runner;
  Status run_segment(Segment& segment, const Interrupt& interrupt, int64_t* step_times);
  Status run_dynamic(Segment& segment, const Interrupt& interrupt);
  void copy_outputs(void* const* outputs);
  Status evaluate_now(Segment& segment, int step);

  const Executor& executor_;
  const Plan& plan_;
  std::vector<Shape> input_shapes_;
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<Segment>> segments_;
  std::unique_ptr<Segment> spare_;  // of the binding before
  std::vector<Buffer> dynamic_;     // per tensor: outputs of dynamic steps
  std::vector<TensorInfo> outputs_;
};

}  // namespace lepton
