// How a bound Context runs; context.cc binds it.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "runtime/executor.h"
#include "runtime/segment.h"

namespace lepton {
namespace {

// How often a run asks whether it was interrupted.
constexpr auto kInterruptPeriod = std::chrono::milliseconds(20);

using Clock = std::chrono::steady_clock;

class StopWatch {
 public:
  void start() { started_ = Clock::now(); }
  int64_t stop() const { return std::chrono::nanoseconds(Clock::now() - started_).count(); }

 private:
  Clock::time_point started_;
};

// Asks every now and then.
class InterruptTimer {
 public:
  explicit InterruptTimer(const Interrupt& interrupt) : interrupt_(interrupt) {
    if (interrupt.requested != nullptr) asked_ = Clock::now();
  }
  bool requested() {
    if (interrupt_.requested == nullptr) return false;
    const auto now = Clock::now();
    if (now - asked_ < kInterruptPeriod) return false;
    asked_ = now;
    return interrupt_.requested(interrupt_.context);
  }

 private:
  const Interrupt& interrupt_;
  Clock::time_point asked_;
};

}  // namespace

Status Context::run(const void* const* inputs, void* const* outputs, const Interrupt& interrupt,
                    int64_t* step_times) {
  const RunScope scope;
  for (Slot& slot : slots_) {
    if (slot.home == Home::kInput) slot.pointer = const_cast<void*>(inputs[slot.index]);
    if (slot.home == Home::kOutput) slot.pointer = outputs[slot.index];
  }
  for (size_t i = 0; i == 0 || segments_[i - 1]->last < static_cast<int>(plan_.steps.size()); ++i) {
    LEPTON_RETURN_IF_ERROR(ensure_segment(i));
    LEPTON_RETURN_IF_ERROR(run_segment(*segments_[i], interrupt, step_times));
  }
  copy_outputs(outputs);
  return {};
}

// Binds segment `index`, or binds it again when the data it depended on changed.
Status Context::ensure_segment(size_t index) {
  if (index < segments_.size() && (index == 0 || is_current(*segments_[index]))) return {};
  segments_.resize(index);
  const Segment& before = *segments_[index - 1];
  LEPTON_RETURN_IF_ERROR(bind_segment(before.last, true));
  if (!before.dynamic) return {};
  for (int id : plan_.steps[before.last - 1].outputs)
    if (id >= 0) segments_[index]->shapes_read.push_back({id, slots_[id].info.shape});
  return {};
}

bool Context::is_current(const Segment& segment) const {
  for (const Segment::ShapeRead& read : segment.shapes_read)
    if (slots_[read.tensor].info.shape != read.shape) return false;
  for (const Segment::ValueRead& read : segment.values_read) {
    const Slot& slot = slots_[read.tensor];
    if (bytes_of(slot.info) != read.contents.size() ||
        std::memcmp(slots_[slot.root].pointer, read.contents.data(), read.contents.size()) != 0)
      return false;
  }
  return true;
}

// The steps of a segment, one by one or side by side.
class Context::Runner {
 public:
  Runner(Context& context, Segment& segment, const Interrupt& interrupt, int64_t* step_times)
      : plan_(context.plan_),
        segment_(segment),
        threads_(context.executor_.threads()),
        pool_(threads_ > 1 ? process_pool() : nullptr, threads_),
        interrupts_(interrupt),
        step_times_(step_times) {}

  Status all() {
    size_t i = 0;
    for (Branches& branches : segment_.branches) {
      LEPTON_RETURN_IF_ERROR(steps(i, branches.first));
      LEPTON_RETURN_IF_ERROR(branches.pace.side_by_side() ? side_by_side(branches)
                                                          : one_after_another(branches));
      i = branches.last;
    }
    return steps(i, segment_.steps.size());
  }

 private:
  Status steps(size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      Segment::Step& step = segment_.steps[i];
      const bool paced = threads_ > 1 && step.pace.is_timed();
      int64_t took = 0;
      LEPTON_RETURN_IF_ERROR(run(step, threads_ > 1 && step.pace.parallel() ? pool_ : Parallel(),
                                 paced ? &took : nullptr));
      if (paced)
        step.pace.took(took);
      else
        step.pace.ran();
      if (interrupts_.requested()) return {Code::kInterrupted, "interrupted"};
    }
    return {};
  }

  Status one_after_another(Branches& branches) {
    if (!branches.pace.is_timed()) {
      branches.pace.ran();
      return steps(branches.first, branches.last);
    }
    std::fill(branches.nanoseconds.begin(), branches.nanoseconds.end(), 0);
    StopWatch whole;
    whole.start();
    for (size_t i = branches.first; i < branches.last; ++i) {
      StopWatch watch;
      watch.start();
      LEPTON_RETURN_IF_ERROR(steps(i, i + 1));
      branches.nanoseconds[branches.chain[i - branches.first]] += watch.stop();
    }
    branches.pace.took(whole.stop());
    branches.divide();
    return {};
  }

  // Every thread runs the chains of its share.
  Status side_by_side(Branches& branches) {
    const bool timed = branches.pace.is_timed();
    StopWatch watch;
    if (timed) watch.start();
    pool_.loop(threads_, [&](int64_t thread, int) {
      Status& status = branches.failed[static_cast<size_t>(thread)];
      status = Status();
      for (size_t i = branches.first; i < branches.last && status.ok(); ++i)
        if (branches.share[branches.chain[i - branches.first]] == static_cast<size_t>(thread))
          status = run(segment_.steps[i], Parallel(), nullptr);
    });
    for (Status& status : branches.failed)
      if (!status.ok()) return std::move(status);
    timed ? branches.pace.took(watch.stop()) : branches.pace.ran();
    return interrupts_.requested() ? Status(Code::kInterrupted, "interrupted") : Status();
  }

  // took: nanoseconds, unless null.
  Status run(Segment::Step& step, Parallel parallel, int64_t* took) const {
    const bool timed = took != nullptr || step_times_ != nullptr;
    StopWatch watch;
    if (timed) watch.start();
    void** pointers = segment_.pointers.data() + step.first_pointer;
    const PlanStep& plan_step = plan_.steps[step.plan_step];
    const Status status =
        step.run({pointers, pointers + plan_step.inputs.size(),
                  segment_.arena.data() + step.scratch_offset, parallel, step.ahead});
    if (!status.ok())
      return {status.code(), std::string(plan_step.op) + " \"" + std::string(plan_step.name) +
                                 "\": " + status.message()};
    if (!timed) return {};
    const int64_t nanoseconds = watch.stop();
    if (took != nullptr) *took = nanoseconds;
    if (step_times_ != nullptr) step_times_[step.plan_step] = nanoseconds;
    return {};
  }

  const Plan& plan_;
  Segment& segment_;
  const int threads_;
  const Parallel pool_;
  InterruptTimer interrupts_;
  int64_t* const step_times_;
};

Status Context::run_segment(Segment& segment, const Interrupt& interrupt, int64_t* step_times) {
  for (const Segment::Patch& patch : segment.patches)
    segment.pointers[patch.pointer] = slots_[patch.root].pointer;
  LEPTON_RETURN_IF_ERROR(Runner(*this, segment, interrupt, step_times).all());
  return segment.dynamic ? run_dynamic(segment, interrupt) : Status();
}

// A dynamic step's view: inputs where they are now, outputs in buffers the context keeps.
class Context::DynamicCall : public DynamicArgs {
 public:
  DynamicCall(Context& context, const PlanStep& step, const Interrupt& interrupt)
      : context_(context), step_(step), interrupts_(interrupt) {
    for (int id : step.inputs) {
      inputs_.push_back(id < 0 ? TensorInfo{} : context.slots_[id].info);
      if (id >= 0) inputs_.back().data = context.slots_[context.slots_[id].root].pointer;
    }
  }
  const TensorInfo& input(int i) const override { return inputs_[i]; }
  Parallel parallel() const override {
    const int threads = context_.executor_.threads();
    return {threads > 1 ? process_pool() : nullptr, threads};
  }

  bool interrupted() override { return interrupts_.requested(); }

  void* allocate(int i, DType dtype, const Shape& shape) override {
    if (i >= static_cast<int>(step_.outputs.size()) || !is_valid(shape)) return nullptr;
    const int id = step_.outputs[i];
    if (id < 0 || dtype != context_.plan_.tensors[id].info.dtype) return nullptr;
    Slot& slot = context_.slots_[id];
    if (context_.dynamic_.empty()) context_.dynamic_.resize(context_.slots_.size());
    slot.info.shape = shape;
    slot.info.data = nullptr;
    slot.home = Home::kDynamic;
    slot.root = id;
    slot.bytes = bytes_of(slot.info);
    slot.live_until = kAlways;
    Buffer& buffer = context_.dynamic_[id];
    if (!buffer.reserve(std::max<size_t>(slot.bytes, 1)).ok()) return nullptr;
    slot.pointer = buffer.data();
    return slot.pointer;
  }

 private:
  Context& context_;
  const PlanStep& step_;
  InterruptTimer interrupts_;
  std::vector<TensorInfo> inputs_;
};

Status Context::run_dynamic(Segment& segment, const Interrupt& interrupt) {
  const PlanStep& step = plan_.steps[segment.last - 1];
  for (int id : step.outputs)
    if (id >= 0) slots_[id].home = Home::kNone;
  DynamicCall call(*this, step, interrupt);
  Status status = segment.dynamic(call);
  for (int id : step.outputs)
    if (status.ok() && id >= 0 && slots_[id].home != Home::kDynamic)
      status = internal_error("an output was not made");
  if (status.ok()) return {};
  return {status.code(),
          std::string(step.op) + " \"" + std::string(step.name) + "\": " + status.message()};
}

void Context::copy_outputs(void* const* outputs) {
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const Slot& slot = slots_[plan_.outputs[i]];
    const Slot& root = slots_[slot.root];
    outputs_[i] = slot.info;
    outputs_[i].data = root.pointer;
    const bool written = root.home == Home::kOutput && root.index == static_cast<int>(i);
    const size_t bytes = bytes_of(slot.info);
    if (!written && outputs[i] != nullptr && bytes != 0)
      std::memcpy(outputs[i], root.pointer, bytes);
  }
}

}  // namespace lepton
