#include "runtime/control_flow.h"

#include <cstring>
#include <limits>

#include "runtime/body.h"
#include "runtime/loop_state.h"

namespace lepton {
namespace {

Status not_one_value(const char* op, const char* what) {
  return invalid_input(std::string(op) + ": the " + what + " must be one value");
}

// What the outputs of a body's slices would be like, had it run; the empty shape where only a run
// could tell.
Shape slice_shape(BodyRun& body, size_t output) {
  const Shape* shape = body.bind().ok() ? body.output_shape(output) : nullptr;
  return shape == nullptr ? Shape{} : *shape;
}

std::vector<bool> wanted_outputs(const StepDesc& desc) {
  std::vector<bool> wanted;
  for (DType t : desc.outputs) wanted.push_back(t != DType::kUndefined);
  return wanted;
}

class IfOp final : public Op {
 public:
  IfOp(std::unique_ptr<Executor> yes, std::unique_ptr<Executor> no, std::vector<bool> wanted)
      : yes_(std::move(yes)), no_(std::move(no)), wanted_(std::move(wanted)) {}

  Status bind(BindContext& context) const override {
    if (context.input(0).shape.elements() != 1) return not_one_value("If", "condition");
    context.set_dynamic_run([this](DynamicArgs& args) { return run(args); });
    return {};
  }

 private:
  Status run(DynamicArgs& args) const {
    const bool condition = *static_cast<const uint8_t*>(args.input(0).data) != 0;
    Executor& branch = condition ? *yes_ : *no_;
    BodyRun body(branch, args);
    for (size_t i = 0; i < branch.plan().inputs.size(); ++i) {
      const TensorInfo& t = args.input(static_cast<int>(i) + 1);
      body.add_input(t.shape, t.data);
    }
    LEPTON_RETURN_IF_ERROR(body.bind());
    std::vector<bool> placed(wanted_.size());
    for (size_t i = 0; i < wanted_.size(); ++i) {
      const Shape* shape = body.output_shape(i);
      if (!wanted_[i] || shape == nullptr) continue;
      void* to = args.allocate(static_cast<int>(i), body.output_dtype(i), *shape);
      if (to == nullptr) return internal_error("an output has an unexpected dtype or size");
      body.write_output(i, to);
      placed[i] = true;
    }
    LEPTON_RETURN_IF_ERROR(body.run());
    for (size_t i = 0; i < wanted_.size(); ++i) {
      if (!wanted_[i] || placed[i]) continue;
      const TensorInfo& t = body.output(i);
      LEPTON_RETURN_IF_ERROR(store_output(args, static_cast<int>(i), t.dtype, t.shape, t.data));
    }
    return {};
  }

  std::unique_ptr<Executor> yes_, no_;
  std::vector<bool> wanted_;
};

// Inputs: trip count?, condition?, carried…, captured…; the body's: iteration, condition, the same.
class LoopOp final : public Op {
 public:
  LoopOp(std::unique_ptr<Executor> body, size_t carried, std::vector<bool> wanted)
      : body_(std::move(body)), carried_(carried), wanted_(std::move(wanted)) {}

  Status bind(BindContext& context) const override {
    for (int i : {0, 1})
      if (context.input(i).present && context.input(i).shape.elements() != 1)
        return not_one_value("Loop", i == 0 ? "trip count" : "condition");
    context.set_dynamic_run([this](DynamicArgs& args) { return run(args); });
    return {};
  }

 private:
  Status run(DynamicArgs& args) const {
    const TensorInfo &trips = args.input(0), &start = args.input(1);
    const int64_t limit = trips.present ? *static_cast<const int64_t*>(trips.data)
                                        : std::numeric_limits<int64_t>::max();
    uint8_t condition = start.present ? *static_cast<const uint8_t*>(start.data) : 1;
    BodyRun body(*body_, args);
    Carried carried;
    for (size_t i = 0; i < carried_; ++i) carried.add(args.input(static_cast<int>(i) + 2));
    std::vector<Stack> stacks;
    for (size_t i = 1 + carried_; i < body.num_outputs(); ++i)
      stacks.emplace_back(body.output_dtype(i), 0, false);
    int64_t iteration = 0;
    for (; iteration < limit && condition != 0; ++iteration) {
      give_inputs(args, carried, &iteration, &condition, &body);
      LEPTON_RETURN_IF_ERROR(body.bind());
      LEPTON_RETURN_IF_ERROR(carried.place_outputs(body, 1));
      LEPTON_RETURN_IF_ERROR(body.run());
      LEPTON_RETURN_IF_ERROR(carried.accept(body, 1));
      for (size_t i = 0; i < stacks.size(); ++i)
        LEPTON_RETURN_IF_ERROR(stacks[i].push(body.output(1 + carried_ + i)));
      if (body.output(0).shape.elements() != 1) return not_one_value("Loop", "condition");
      condition = *static_cast<const uint8_t*>(body.output(0).data);
      if (args.interrupted()) return {Code::kInterrupted, "interrupted"};
    }
    LEPTON_RETURN_IF_ERROR(carried.store(args, wanted_));
    give_inputs(args, carried, &iteration, &condition, &body);
    for (size_t i = 0; i < stacks.size(); ++i) {
      const size_t output = carried_ + i;
      if (output >= wanted_.size() || !wanted_[output]) continue;
      const Shape empty = iteration == 0 ? slice_shape(body, 1 + output) : Shape{};
      LEPTON_RETURN_IF_ERROR(stacks[i].store(args, static_cast<int>(output), empty));
    }
    return {};
  }

  void give_inputs(const DynamicArgs& args, const Carried& carried, const int64_t* iteration,
                   const uint8_t* condition, BodyRun* body) const {
    body->clear();
    body->add_input(Shape{}, iteration);
    body->add_input(Shape{}, condition);
    carried.give_to(*body);
    for (size_t i = 2 + carried_; i < body_->plan().inputs.size(); ++i) {
      const TensorInfo& t = args.input(static_cast<int>(i));
      body->add_input(t.shape, t.data);
    }
  }

  std::unique_ptr<Executor> body_;
  size_t carried_;
  std::vector<bool> wanted_;
};

struct ScanAxes {
  std::vector<int64_t> inputs, outputs;
  std::vector<bool> input_reversed, output_reversed;
};

// One scanned input: its slices along an axis, in order or backwards.
class Slices {
 public:
  Status init(const TensorInfo& whole, int64_t axis, bool reversed) {
    if (whole.shape.rank == 0) return invalid_input("Scan: a scalar cannot be scanned");
    axis += axis < 0 ? whole.shape.rank : 0;
    if (axis < 0 || axis >= whole.shape.rank) return invalid_model("Scan: axis of an input");
    const int at = static_cast<int>(axis);
    reversed_ = reversed;
    data_ = static_cast<const std::byte*>(whole.data);
    count_ = whole.shape[at];
    shape_ = Shape::of(whole.shape.dims, at);
    for (int i = at + 1; i < whole.shape.rank; ++i) shape_.push_back(whole.shape[i]);
    outer_ = whole.shape.product(0, at);
    run_ =
        static_cast<size_t>(whole.shape.product(at + 1, whole.shape.rank)) * size_of(whole.dtype);
    return outer_ == 1 ? Status() : copy_.reserve(static_cast<size_t>(outer_) * run_ + 1);
  }
  int64_t count() const { return count_; }
  const Shape& shape() const { return shape_; }
  // Slice t; valid until the next call.
  const void* at(int64_t t) const {
    const size_t place = static_cast<size_t>(reversed_ ? count_ - 1 - t : t);
    if (outer_ == 1) return data_ + place * run_;
    for (size_t o = 0; run_ != 0 && o < static_cast<size_t>(outer_); ++o)
      std::memcpy(copy_.data() + o * run_, data_ + (o * static_cast<size_t>(count_) + place) * run_,
                  run_);
    return copy_.data();
  }

 private:
  const std::byte* data_ = nullptr;
  bool reversed_ = false;
  int64_t count_ = 0, outer_ = 0;
  size_t run_ = 0;
  Shape shape_;
  Buffer copy_;
};

// Inputs: carried…, scanned…, captured…; the body's: the same, with slices of what is scanned.
class ScanOp final : public Op {
 public:
  ScanOp(std::unique_ptr<Executor> body, size_t carried, ScanAxes axes, std::vector<bool> wanted)
      : body_(std::move(body)),
        carried_(carried),
        axes_(std::move(axes)),
        wanted_(std::move(wanted)) {}

  Status bind(BindContext& context) const override {
    context.set_dynamic_run([this](DynamicArgs& args) { return run(args); });
    return {};
  }

 private:
  Status run(DynamicArgs& args) const {
    std::vector<Slices> scanned(axes_.inputs.size());
    for (size_t i = 0; i < scanned.size(); ++i) {
      LEPTON_RETURN_IF_ERROR(scanned[i].init(args.input(static_cast<int>(carried_ + i)),
                                             axes_.inputs[i], axes_.input_reversed[i]));
      if (scanned[i].count() != scanned[0].count())
        return invalid_input("Scan: the scanned inputs differ in length");
    }
    BodyRun body(*body_, args);
    Carried carried;
    for (size_t i = 0; i < carried_; ++i) carried.add(args.input(static_cast<int>(i)));
    std::vector<Stack> stacks;
    for (size_t i = 0; i < axes_.outputs.size(); ++i)
      stacks.emplace_back(body.output_dtype(carried_ + i), axes_.outputs[i],
                          axes_.output_reversed[i]);
    for (int64_t t = 0; t < scanned[0].count(); ++t) {
      give_inputs(args, carried, scanned, t, &body);
      LEPTON_RETURN_IF_ERROR(body.bind());
      LEPTON_RETURN_IF_ERROR(carried.place_outputs(body, 0));
      LEPTON_RETURN_IF_ERROR(body.run());
      LEPTON_RETURN_IF_ERROR(carried.accept(body, 0));
      for (size_t i = 0; i < stacks.size(); ++i)
        LEPTON_RETURN_IF_ERROR(stacks[i].push(body.output(carried_ + i)));
      if (args.interrupted()) return {Code::kInterrupted, "interrupted"};
    }
    LEPTON_RETURN_IF_ERROR(carried.store(args, wanted_));
    const bool none = scanned[0].count() == 0;
    if (none) give_inputs(args, carried, scanned, -1, &body);
    for (size_t i = 0; i < stacks.size(); ++i) {
      if (!wanted_[carried_ + i]) continue;
      const Shape empty = none ? slice_shape(body, carried_ + i) : Shape{};
      LEPTON_RETURN_IF_ERROR(stacks[i].store(args, static_cast<int>(carried_ + i), empty));
    }
    return {};
  }

  // t = −1: shapes only.
  void give_inputs(const DynamicArgs& args, const Carried& carried,
                   const std::vector<Slices>& scanned, int64_t t, BodyRun* body) const {
    body->clear();
    carried.give_to(*body);
    for (const Slices& s : scanned) body->add_input(s.shape(), t < 0 ? nullptr : s.at(t));
    for (size_t i = carried_ + scanned.size(); i < body_->plan().inputs.size(); ++i) {
      const TensorInfo& captured = args.input(static_cast<int>(i));
      body->add_input(captured.shape, captured.data);
    }
  }

  std::unique_ptr<Executor> body_;
  size_t carried_;
  ScanAxes axes_;
  std::vector<bool> wanted_;
};

Status make_body(const PlanStep& step, std::string_view name, const ExecutorOptions& options,
                 std::unique_ptr<Executor>* body) {
  for (const PlanBody& candidate : step.bodies)
    if (candidate.name == name) return Executor::create(candidate.plan, options, body);
  return invalid_model("there is no body \"" + std::string(name) + "\"");
}

// The dtypes with which the step feeds a body from `step_first` on, against what it declares.
Status check_fed(const StepDesc& desc, size_t step_first, const Executor& body, size_t body_first) {
  const Plan& plan = body.plan();
  if (plan.inputs.size() < body_first ||
      plan.inputs.size() - body_first != desc.inputs.size() - step_first)
    return invalid_model("a body with another number of inputs than the step gives it");
  for (size_t i = body_first; i < plan.inputs.size(); ++i) {
    const TensorInfo& fed = desc.inputs[i - body_first + step_first];
    if (!fed.present ||
        fed.dtype != plan.tensors[static_cast<size_t>(plan.inputs[i].tensor)].info.dtype)
      return invalid_model("an input of a body is missing or of another dtype");
  }
  return {};
}

DType made_dtype(const Executor& body, size_t i) {
  const Plan& plan = body.plan();
  return plan.tensors[static_cast<size_t>(plan.outputs[i])].info.dtype;
}

// The body's outputs from body_first on are the step's, and the first `carried` of them continue
// inputs of the body from `fed_first` on.
Status check_made(const StepDesc& desc, const Executor& body, size_t body_first, size_t carried,
                  size_t fed_first) {
  const Plan& plan = body.plan();
  if (plan.outputs.size() < body_first + carried ||
      plan.outputs.size() - body_first < desc.outputs.size())
    return invalid_model("a body with too few outputs");
  for (size_t i = 0; i < desc.outputs.size(); ++i)
    if (desc.outputs[i] != DType::kUndefined && desc.outputs[i] != made_dtype(body, body_first + i))
      return invalid_model("an output of a body is of another dtype than the step's");
  for (size_t i = 0; i < carried; ++i) {
    const auto fed = static_cast<size_t>(plan.inputs[fed_first + i].tensor);
    if (plan.tensors[fed].info.dtype != made_dtype(body, body_first + i))
      return invalid_model("a body changes the dtype of what it carries on");
  }
  return {};
}

Status make_if(const PlanStep& step, const StepDesc& desc, const ExecutorOptions& options,
               std::unique_ptr<Op>* op) {
  if (!desc.has_input(0) || desc.inputs[0].dtype != DType::kBool)
    return invalid_model("the condition must be bool");
  std::unique_ptr<Executor> branches[2];
  const char* names[2] = {"then_branch", "else_branch"};
  for (int i = 0; i < 2; ++i) {
    LEPTON_RETURN_IF_ERROR(make_body(step, names[i], options, &branches[i]));
    LEPTON_RETURN_IF_ERROR(check_fed(desc, 1, *branches[i], 0));
    LEPTON_RETURN_IF_ERROR(check_made(desc, *branches[i], 0, 0, 0));
  }
  *op =
      std::make_unique<IfOp>(std::move(branches[0]), std::move(branches[1]), wanted_outputs(desc));
  return {};
}

Status make_loop(const PlanStep& step, const StepDesc& desc, const ExecutorOptions& options,
                 std::unique_ptr<Op>* op) {
  const int64_t carried = desc.attrs->i("carried");
  if (desc.inputs.size() < 2 || carried < 0 ||
      static_cast<size_t>(carried) > desc.inputs.size() - 2)
    return invalid_model("too few inputs");
  const auto count = static_cast<size_t>(carried);
  if (desc.has_input(0) && desc.inputs[0].dtype != DType::kS64)
    return invalid_model("the trip count must be int64");
  if (desc.has_input(1) && desc.inputs[1].dtype != DType::kBool)
    return invalid_model("the condition must be bool");
  std::unique_ptr<Executor> body;
  LEPTON_RETURN_IF_ERROR(make_body(step, "body", options, &body));
  LEPTON_RETURN_IF_ERROR(check_fed(desc, 2, *body, 2));
  LEPTON_RETURN_IF_ERROR(check_made(desc, *body, 1, count, 2));
  const Plan& plan = body->plan();
  const DType counter = plan.tensors[static_cast<size_t>(plan.inputs[0].tensor)].info.dtype;
  const DType condition = plan.tensors[static_cast<size_t>(plan.inputs[1].tensor)].info.dtype;
  if (counter != DType::kS64 || condition != DType::kBool || made_dtype(*body, 0) != DType::kBool)
    return invalid_model("a body whose iteration or condition is of another dtype");
  *op = std::make_unique<LoopOp>(std::move(body), count, wanted_outputs(desc));
  return {};
}

Status make_scan(const PlanStep& step, const StepDesc& desc, const ExecutorOptions& options,
                 std::unique_ptr<Op>* op) {
  const int64_t carried = desc.attrs->i("carried"), scanned = desc.attrs->i("num_scan_inputs");
  const auto inputs = static_cast<int64_t>(desc.inputs.size());
  if (carried < 0 || scanned < 1 || carried > inputs || scanned > inputs - carried)
    return invalid_model("too few inputs");
  std::unique_ptr<Executor> body;
  LEPTON_RETURN_IF_ERROR(make_body(step, "body", options, &body));
  const auto count = static_cast<size_t>(carried);
  LEPTON_RETURN_IF_ERROR(check_fed(desc, 0, *body, 0));
  LEPTON_RETURN_IF_ERROR(check_made(desc, *body, 0, count, 0));
  if (desc.outputs.size() < count) return invalid_model("too few outputs");
  ScanAxes axes;
  const size_t stacked = desc.outputs.size() - count;
  const auto read = [&](const char* name, size_t size, std::vector<int64_t>* list) -> Status {
    const Attrs::Ints given = desc.attrs->ints(name);
    if (given.size != 0 && given.size != size) return invalid_model(std::string(name) + " list");
    for (size_t i = 0; i < size; ++i) list->push_back(given.size == 0 ? 0 : given.data[i]);
    return {};
  };
  std::vector<int64_t> in_directions, out_directions;
  const auto slices = static_cast<size_t>(scanned);
  LEPTON_RETURN_IF_ERROR(read("scan_input_axes", slices, &axes.inputs));
  LEPTON_RETURN_IF_ERROR(read("scan_input_directions", slices, &in_directions));
  LEPTON_RETURN_IF_ERROR(read("scan_output_axes", stacked, &axes.outputs));
  LEPTON_RETURN_IF_ERROR(read("scan_output_directions", stacked, &out_directions));
  for (int64_t d : in_directions) axes.input_reversed.push_back(d != 0);
  for (int64_t d : out_directions) axes.output_reversed.push_back(d != 0);
  *op = std::make_unique<ScanOp>(std::move(body), count, std::move(axes), wanted_outputs(desc));
  return {};
}

}  // namespace

Status make_control_flow(const PlanStep& step, const StepDesc& desc, const ExecutorOptions& options,
                         std::unique_ptr<Op>* op) {
  if (step.op == "If") return make_if(step, desc, options, op);
  if (step.op == "Loop") return make_loop(step, desc, options, op);
  if (step.op == "Scan") return make_scan(step, desc, options, op);
  return invalid_model("a step of this operator has no bodies");
}

}  // namespace lepton
