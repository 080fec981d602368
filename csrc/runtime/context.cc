#include "runtime/context.h"

#include <algorithm>
#include <cstring>

#include "runtime/executor.h"
#include "runtime/segment.h"

namespace lepton {
namespace {

// Values up to this size are computed at bind when all their inputs are known then.
constexpr size_t kMaxKnownBytes = 8192;
// Branches that make more are not run side by side: all that they make is alive at once then, and
// their steps are long enough to be shared out.
constexpr size_t kMaxBranchBytes = size_t{4} << 20;

}  // namespace

// A step's view while it is bound: one step after the other.
class Context::Binder : public BindContext {
 public:
  Binder(Context& context, Segment& segment, bool values_known)
      : context_(context), segment_(segment), values_known_(values_known) {}

  void begin(int step) {
    step_ = step;
    plan_ = &context_.plan_.steps[step];
    inputs_.clear();
    for (int id : plan_->inputs)
      inputs_.push_back(id < 0 ? TensorInfo{} : context_.slots_[id].info);
    in_place_.clear();
    run_ = nullptr;
    dynamic_ = nullptr;
    scratch_ = 0;
    needs_value_ = false;
  }

  int num_inputs() const override { return static_cast<int>(inputs_.size()); }
  const TensorInfo& input(int i) const override { return inputs_[i]; }
  int num_outputs() const override { return static_cast<int>(plan_->outputs.size()); }
  DType output_dtype(int i) const override {
    return plan_->outputs[i] < 0 ? DType::kUndefined : slot_out(i).info.dtype;
  }
  int threads() const override { return context_.executor_.threads(); }

  bool require_value(int i) override {
    if (inputs_[i].data != nullptr) return true;
    const int id = plan_->inputs[i];
    const Slot& slot = context_.slots_[id];
    const Slot& root = context_.slots_[slot.root];
    const bool made_here = context_.plan_.tensors[id].producer >= segment_.first;
    if (!values_known_ || made_here || root.pointer == nullptr) {
      needs_value_ = true;
      return false;
    }
    const auto* data = static_cast<const std::byte*>(root.pointer);
    segment_.values_read.push_back({id, {data, data + bytes_of(slot.info)}});
    inputs_[i].data = root.pointer;
    return true;
  }

  Status set_output(int i, const Shape& shape) override {
    LEPTON_RETURN_IF_ERROR(prepare(i, shape));
    if (plan_->outputs[i] < 0) return {};
    Slot& slot = slot_out(i);
    slot.home = Home::kArena;
    slot.bytes = bytes_of(slot.info);
    slot.live_until = last_use(i);
    return {};
  }

  Status set_alias(int i, int j, const Shape& shape) override {
    LEPTON_RETURN_IF_ERROR(prepare(i, shape));
    if (plan_->outputs[i] < 0) return {};
    if (shape.elements() != inputs_[j].shape.elements())
      return invalid_input("cannot view " + inputs_[j].shape.str() + " as " + shape.str());
    share(i, context_.slots_[plan_->inputs[j]].root);
    slot_out(i).info.data = inputs_[j].data;
    return {};
  }

  Status set_known(int i, const Shape& shape, const void* data, size_t bytes) override {
    LEPTON_RETURN_IF_ERROR(prepare(i, shape));
    if (plan_->outputs[i] < 0) return {};
    Slot& slot = slot_out(i);
    if (bytes != bytes_of(slot.info)) return internal_error("known value has the wrong size");
    Buffer buffer;
    LEPTON_RETURN_IF_ERROR(buffer.reserve(std::max<size_t>(bytes, 1)));
    if (bytes != 0) std::memcpy(buffer.data(), data, bytes);
    slot.home = Home::kFixed;
    slot.pointer = buffer.data();
    slot.info.data = buffer.data();
    slot.bytes = bytes;
    segment_.known.push_back(std::move(buffer));
    return {};
  }

  // Takes effect after bind (the outputs' shapes are set by then).
  void allow_in_place(int i, int j) override { in_place_.push_back({i, j}); }
  void set_scratch(size_t bytes) override { scratch_ = bytes; }
  void set_run(RunFn fn) override { run_ = std::move(fn); }
  void set_dynamic_run(DynamicFn fn) override { dynamic_ = std::move(fn); }

  void share_in_place() {
    for (const auto& [i, j] : in_place_) {
      if (plan_->outputs[i] < 0 || plan_->inputs[j] < 0) continue;
      const int root = context_.slots_[plan_->inputs[j]].root;
      Slot& from = context_.slots_[root];
      Slot& out = slot_out(i);
      if (out.root == plan_->outputs[i] && out.home == Home::kArena && from.home == Home::kArena &&
          from.live_until <= step_ && from.bytes == out.bytes && is_read_once(root) &&
          context_.plan_.tensors[root].producer >= segment_.first)
        share(i, root);
    }
  }

  bool needs_value() const { return needs_value_; }
  RunFn& run() { return run_; }
  DynamicFn& dynamic() { return dynamic_; }
  size_t scratch() const { return scratch_; }
  bool all_inputs_known() const {
    return std::all_of(inputs_.begin(), inputs_.end(),
                       [](const TensorInfo& t) { return !t.present || t.data != nullptr; });
  }

 private:
  Slot& slot_out(int i) const { return context_.slots_[plan_->outputs[i]]; }
  // Whether one operand only of the step lies in this memory.
  bool is_read_once(int root) const {
    return std::count_if(plan_->inputs.begin(), plan_->inputs.end(),
                         [&](int id) { return id >= 0 && context_.slots_[id].root == root; }) == 1;
  }
  int last_use(int i) const {
    return std::max(context_.plan_.tensors[plan_->outputs[i]].last_use, step_);
  }

  Status prepare(int i, const Shape& shape) {
    if (!is_valid(shape)) return invalid_input("the result would have shape " + shape.str());
    if (plan_->outputs[i] < 0) return {};
    Slot& slot = slot_out(i);
    slot.info.shape = shape;
    slot.info.data = nullptr;
    slot.root = plan_->outputs[i];
    return {};
  }

  void share(int i, int root) {
    Slot& slot = slot_out(i);
    slot.root = root;
    slot.home = Home::kNone;
    Slot& owner = context_.slots_[root];
    owner.live_until = std::max(owner.live_until, last_use(i));
  }

  Context& context_;
  Segment& segment_;
  const bool values_known_;
  int step_ = 0;
  const PlanStep* plan_ = nullptr;
  std::vector<TensorInfo> inputs_;
  std::vector<std::pair<int, int>> in_place_;
  RunFn run_;
  DynamicFn dynamic_;
  size_t scratch_ = 0;
  bool needs_value_ = false;
};

Context::Context(const Executor& executor) : executor_(executor), plan_(executor.plan()) {}
Context::~Context() = default;

Status Context::bind(const std::vector<Shape>& input_shapes) {
  input_shapes_ = input_shapes;
  slots_.assign(plan_.tensors.size(), {});
  for (size_t t = 0; t < slots_.size(); ++t) {
    Slot& slot = slots_[t];
    slot.info = plan_.tensors[t].info;
    slot.root = static_cast<int>(t);
    if (!slot.info.constant) continue;
    slot.home = Home::kFixed;
    slot.pointer = const_cast<void*>(slot.info.data);
  }
  for (size_t i = 0; i < plan_.inputs.size(); ++i) {
    Slot& slot = slots_[plan_.inputs[i].tensor];
    slot.info.shape = input_shapes[i];
    slot.home = Home::kInput;
    slot.index = static_cast<int>(i);
  }
  outputs_.resize(plan_.outputs.size());
  if (!segments_.empty()) spare_ = std::move(segments_.front());
  segments_.clear();
  return bind_segment(0, false);
}

Status Context::bind_segment(int first, bool values_known) {
  std::unique_ptr<Segment> segment = spare_ ? std::move(spare_) : std::make_unique<Segment>();
  segment->reset(first);
  const int count = static_cast<int>(plan_.steps.size());
  Binder binder(*this, *segment, values_known);
  for (int s = first; s < count && !segment->dynamic; ++s) {
    binder.begin(s);
    Status status = executor_.op(s).bind(binder);
    if (binder.needs_value()) {
      if (s == first && values_known) return internal_error("a value is never known");
      break;
    }
    if (!status.ok())
      return {status.code(), std::string(plan_.steps[s].op) + " \"" +
                                 std::string(plan_.steps[s].name) + "\": " + status.message()};
    segment->last = s + 1;
    if (binder.dynamic()) segment->dynamic = std::move(binder.dynamic());
    if (!binder.run()) continue;
    segment->steps.push_back({std::move(binder.run()), s, 0, binder.scratch(), 0, Pace(s)});
    if (binder.all_inputs_known()) {
      LEPTON_RETURN_IF_ERROR(evaluate_now(*segment, s));
    } else {
      binder.share_in_place();
    }
  }
  LEPTON_RETURN_IF_ERROR(layout(*segment));
  segments_.push_back(std::move(segment));
  return {};
}

// Runs the step just bound, whose inputs are all known, if its outputs are small; they become
// known.
Status Context::evaluate_now(Segment& segment, int s) {
  const PlanStep& step = plan_.steps[s];
  size_t total = 0;
  for (int id : step.outputs)
    if (id >= 0) total += slots_[id].bytes;
  if (total > kMaxKnownBytes) return {};
  std::vector<void*> pointers;
  for (int id : step.inputs)
    pointers.push_back(id < 0 ? nullptr : const_cast<void*>(slots_[id].info.data));
  std::vector<Buffer> made(step.outputs.size());
  for (size_t i = 0; i < made.size(); ++i) {
    if (step.outputs[i] >= 0)
      LEPTON_RETURN_IF_ERROR(made[i].reserve(std::max<size_t>(slots_[step.outputs[i]].bytes, 1)));
    pointers.push_back(made[i].data());
  }
  // Inputs that a value was required of have their data in the binder only.
  for (size_t i = 0; i < step.inputs.size(); ++i)
    if (step.inputs[i] >= 0 && pointers[i] == nullptr) return {};
  Segment::Step bound = std::move(segment.steps.back());
  segment.steps.pop_back();
  Buffer scratch;
  LEPTON_RETURN_IF_ERROR(scratch.reserve(std::max<size_t>(bound.scratch, 1)));
  const RunArgs args{pointers.data(), pointers.data() + step.inputs.size(), scratch.data(), {}};
  LEPTON_RETURN_IF_ERROR(bound.run(args));
  for (size_t i = 0; i < made.size(); ++i) {
    if (step.outputs[i] < 0) continue;
    Slot& slot = slots_[step.outputs[i]];
    slot.home = Home::kFixed;
    slot.pointer = made[i].data();
    slot.info.data = made[i].data();
    segment.known.push_back(std::move(made[i]));
  }
  return {};
}

// An output whose memory is this first segment's own may be written to the caller's memory
// directly.
void Context::give_outputs_to_caller(Segment& segment) {
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const Slot& slot = slots_[plan_.outputs[i]];
    Slot& root = slots_[slot.root];
    if (root.home != Home::kArena || root.bytes != bytes_of(slot.info) || root.bytes == 0) continue;
    if (plan_.tensors[plan_.outputs[i]].producer >= segment.last) continue;
    root.home = Home::kOutput;
    root.index = static_cast<int>(i);
  }
}

Status Context::layout(Segment& segment) {
  if (segment.first == 0 && segments_.empty()) give_outputs_to_caller(segment);
  if (executor_.threads() > 1) find_branches(segment);
  std::vector<Lifetime> lifetimes;
  std::vector<int> owners;
  for (const Segment::Step& step : segment.steps) {
    for (int id : plan_.steps[step.plan_step].outputs) {
      if (id < 0 || slots_[id].root != id || slots_[id].home != Home::kArena) continue;
      lifetimes.push_back({step.plan_step, slots_[id].live_until, slots_[id].bytes, 0});
      owners.push_back(id);
    }
  }
  const std::vector<size_t> scratch = add_scratch(segment, &lifetimes);
  segment.live_bytes = largest_live_set(lifetimes);
  const size_t bytes = lay_out(lifetimes) + kAlignment;
  if (segment.arena.capacity() / 2 > bytes) segment.arena = Buffer();  // of much larger shapes
  LEPTON_RETURN_IF_ERROR(segment.arena.reserve(bytes));
  for (size_t i = 0; i < owners.size(); ++i)
    slots_[owners[i]].pointer = segment.arena.data() + lifetimes[i].offset;
  for (size_t i = 0; i < segment.steps.size(); ++i)
    segment.steps[i].scratch_offset = lifetimes[scratch[i]].offset;
  resolve_pointers(segment);
  return {};
}

// Finds what may run side by side, and keeps all tensors that it touches until its end.
void Context::find_branches(Segment& segment) {
  std::vector<StepAccess> accesses;
  for (const Segment::Step& step : segment.steps) {
    StepAccess access;
    for (const int id : plan_.steps[step.plan_step].inputs)
      if (id >= 0 && slots_[slots_[id].root].home != Home::kFixed)
        access.reads.push_back(slots_[id].root);
    for (const int id : plan_.steps[step.plan_step].outputs)
      if (id >= 0) access.writes.push_back(slots_[id].root);
    accesses.push_back(std::move(access));
  }
  for (Branches& branches : lepton::find_branches(accesses)) {
    size_t bytes = 0;
    for (size_t i = branches.first; i < branches.last; ++i) {
      bytes += segment.steps[i].scratch;
      for (const int root : accesses[i].writes) bytes += slots_[root].bytes;
    }
    if (bytes > kMaxBranchBytes) continue;
    const int end = segment.steps[branches.last - 1].plan_step;
    for (size_t i = branches.first; i < branches.last; ++i)
      for (const std::vector<int>* roots : {&accesses[i].reads, &accesses[i].writes})
        for (const int root : *roots)
          slots_[root].live_until = std::max(slots_[root].live_until, end);
    branches.prepare(static_cast<size_t>(executor_.threads()));
    segment.branches.push_back(std::move(branches));
  }
}

// Scratch is the same bytes for all steps where it is small, so that they stay in the cache; where
// it is not, each step's lies wherever there is room at that time. Branches have their own. Returns
// the lifetime of each step's.
std::vector<size_t> Context::add_scratch(const Segment& segment,
                                         std::vector<Lifetime>* lifetimes) const {
  constexpr size_t kSmall = 16;  // times smaller than the tensors
  constexpr size_t kNone = ~size_t{0};
  std::vector<size_t> found(segment.steps.size(), kNone);
  for (const Branches& branches : segment.branches) {
    const size_t first = lifetimes->size();
    const int begin = segment.steps[branches.first].plan_step;
    const int end = segment.steps[branches.last - 1].plan_step;
    lifetimes->resize(first + branches.chains, {begin, end, 0, 0});
    for (size_t i = branches.first; i < branches.last; ++i) {
      found[i] = first + branches.chain[i - branches.first];
      size_t& bytes = (*lifetimes)[found[i]].bytes;
      bytes = std::max(bytes, segment.steps[i].scratch);
    }
  }
  size_t most = 0;
  for (size_t i = 0; i < found.size(); ++i)
    if (found[i] == kNone) most = std::max(most, segment.steps[i].scratch);
  const bool one = most * kSmall <= largest_live_set(*lifetimes);
  if (one) lifetimes->push_back({segment.first, segment.last, most, 0});
  const size_t shared = lifetimes->size() - 1;
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] != kNone) continue;
    const Segment::Step& step = segment.steps[i];
    if (!one) lifetimes->push_back({step.plan_step, step.plan_step, step.scratch, 0});
    found[i] = one ? shared : lifetimes->size() - 1;
  }
  return found;
}

void Context::resolve_pointers(Segment& segment) {
  for (Segment::Step& step : segment.steps) {
    const PlanStep& plan_step = plan_.steps[step.plan_step];
    step.first_pointer = static_cast<int>(segment.pointers.size());
    for (const std::vector<int>* ids : {&plan_step.inputs, &plan_step.outputs}) {
      for (int id : *ids) {
        const int root = id < 0 ? -1 : slots_[id].root;
        const Home home = root < 0 ? Home::kFixed : slots_[root].home;
        if (home == Home::kInput || home == Home::kOutput || home == Home::kDynamic)
          segment.patches.push_back({static_cast<int>(segment.pointers.size()), root});
        segment.pointers.push_back(root < 0 ? nullptr : slots_[root].pointer);
      }
    }
  }
  look_ahead(segment);
}

// Tells each step the first weights of the next step that has any.
void Context::look_ahead(Segment& segment) const {
  Ahead ahead;
  for (size_t i = segment.steps.size(); i-- > 0;) {
    segment.steps[i].ahead = ahead;
    const std::vector<int>& inputs = plan_.steps[segment.steps[i].plan_step].inputs;
    for (size_t j = inputs.size(); j-- > 0;) {
      if (inputs[j] < 0) continue;
      const Ahead weights = weights_of(slots_[inputs[j]].info);
      if (weights.bytes > 0) ahead = weights;
    }
  }
}

const Shape* Context::output_shape(int i) const {
  const int id = plan_.outputs[i];
  const Segment& first = *segments_[0];
  const int fixed = first.dynamic ? first.last - 1 : first.last;  // a dynamic step ends its segment
  return plan_.tensors[id].producer < fixed ? &slots_[id].info.shape : nullptr;
}

const TensorInfo& Context::output(int i) const { return outputs_[i]; }

size_t Context::arena_bytes() const {
  size_t total = 0;
  for (const auto& segment : segments_) total += segment->arena.capacity();
  return total;
}

size_t Context::live_bytes() const {
  size_t total = 0;
  for (const auto& segment : segments_) total += segment->live_bytes;
  return total;
}

}  // namespace lepton
