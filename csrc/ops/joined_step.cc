#include "ops/joined_step.h"

#include <algorithm>

namespace lepton {
namespace {

// The parts of "a+b+c".
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find('+')) != std::string_view::npos; text.remove_prefix(end + 1))
    parts.push_back(text.substr(0, end));
  parts.push_back(text);
  return parts;
}

}  // namespace

int JoinedSteps::result_of(size_t value) const {
  const auto at = std::find(results.begin(), results.end(), value);
  return at == results.end() ? -1 : static_cast<int>(at - results.begin());
}

Status JoinedSteps::init(const StepDesc& step, bool (*joins)(std::string_view)) {
  const Attrs::Ints rows = step.attrs->ints("rows"), made_types = step.attrs->ints("values");
  const Attrs::Ints given = step.attrs->ints("results");
  if (rows.size != step.inputs.size() || given.size != step.outputs.size() || made_types.size == 0)
    return invalid_model("operands and attributes of joined steps do not agree");
  for (size_t i = 0; i < rows.size; ++i) {
    if (!step.has_input(i)) return invalid_model("an input of joined steps is missing");
    cut.push_back(rows.data[i] != 0);
  }
  for (size_t i = 0; i < made_types.size; ++i)
    values.push_back(static_cast<DType>(made_types.data[i]));
  for (size_t i = 0; i < given.size; ++i) {
    if (given.data[i] < 0 || static_cast<size_t>(given.data[i]) >= values.size() ||
        values[static_cast<size_t>(given.data[i])] != step.outputs[i])
      return invalid_model("a result of joined steps is none of their values");
    results.push_back(static_cast<size_t>(given.data[i]));
  }
  const std::vector<std::string_view> ops = split(step.op);
  std::vector<std::string_view> kernels = split(step.kernel);
  kernels.resize(std::max(ops.size(), kernels.size()));
  size_t made = 0;
  for (size_t i = 0; i < ops.size(); ++i) {
    if (!joins(ops[i])) return invalid_model(std::string(ops[i]) + " cannot be joined with others");
    LEPTON_RETURN_IF_ERROR(init_step(step, i, ops[i], kernels[i]));
    for (int id : steps.back().out)
      if (id != static_cast<int>(num_inputs() + made++))
        return invalid_model("joined steps make their values in another order");
  }
  return made == values.size() ? Status() : invalid_model("a value of joined steps is not made");
}

Status JoinedSteps::read_operands(const StepDesc& whole, const std::string& name, size_t made,
                                  std::vector<int>* operands) const {
  const Attrs::Ints given = whole.attrs->ints(name);
  if (given.size == 0 || given.size > kMaxJoinedOperands)
    return invalid_model("\"" + name + "\" of joined steps is missing or too long");
  for (size_t i = 0; i < given.size; ++i) {
    if (given.data[i] < -1 || given.data[i] >= static_cast<int64_t>(num_inputs() + made))
      return invalid_model("joined steps read what is not made yet");
    operands->push_back(static_cast<int>(given.data[i]));
  }
  return {};
}

Status JoinedSteps::init_step(const StepDesc& whole, size_t index, std::string_view op,
                              std::string_view kernel) {
  const std::string prefix = std::to_string(index) + ".";
  size_t made = 0;
  for (const JoinedStep& step : steps) made += step.out.size();
  JoinedStep step;
  step.name = op;
  LEPTON_RETURN_IF_ERROR(read_operands(whole, prefix + "in", made, &step.in));
  LEPTON_RETURN_IF_ERROR(read_operands(whole, prefix + "out", values.size(), &step.out));
  step.attrs = whole.attrs->group(prefix);
  steps.push_back(std::move(step));
  JoinedStep& kept = steps.back();
  StepDesc desc;
  desc.op = op;
  desc.name = whole.name;
  desc.kernel = kernel;
  desc.attrs = &kept.attrs;
  desc.isa = whole.isa;
  for (int id : kept.in) {
    TensorInfo info;
    info.present = id >= 0;
    const size_t at = static_cast<size_t>(id);
    if (id >= 0 && at < num_inputs()) info = whole.inputs[at];
    if (id >= static_cast<int>(num_inputs())) info.dtype = values[at - num_inputs()];
    desc.inputs.push_back(info);
  }
  for (int id : kept.out) {
    if (id < static_cast<int>(num_inputs())) return invalid_model("joined steps write an input");
    desc.outputs.push_back(values[static_cast<size_t>(id) - num_inputs()]);
  }
  return find_op(op)(desc, &kept.op);
}

}  // namespace lepton
