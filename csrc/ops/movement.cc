#include "ops/movement.h"

namespace lepton {
namespace {

// Copies are made of elements of 1, 2, 4 or 8 bytes.
bool is_movable(DType t) { return size_of(t) != 0 && size_of(t) <= 8; }

}  // namespace

Status check_operands(const StepDesc& desc, size_t required, size_t at_most,
                      bool any_output_may_be_absent) {
  const std::string op(desc.op);
  for (size_t i = 0; i < required; ++i)
    if (!desc.has_input(i))
      return invalid_model(op + ": input " + std::to_string(i) + " is missing");
  for (size_t i = 0; i < desc.inputs.size(); ++i) {
    if (!desc.inputs[i].present) continue;
    if (i >= at_most) return invalid_model(op + ": too many inputs");
    if (!is_movable(desc.inputs[i].dtype))
      return unsupported(op + ": dtype of input " + std::to_string(i));
  }
  const bool has_first = !desc.outputs.empty() && desc.outputs[0] != DType::kUndefined;
  if (!has_first && !any_output_may_be_absent) return invalid_model(op + ": output 0 is missing");
  for (DType t : desc.outputs)
    if (t != DType::kUndefined && !is_movable(t)) return unsupported(op + ": output dtype");
  return {};
}

Status check_same_dtype(const StepDesc& desc, size_t input, size_t output) {
  if (!desc.has_input(input) || output >= desc.outputs.size()) return {};
  const DType out = desc.outputs[output];
  if (out == DType::kUndefined || out == desc.inputs[input].dtype) return {};
  return invalid_model(std::string(desc.op) + ": " + name_of(desc.inputs[input].dtype) +
                       " input but " + name_of(out) + " output");
}

Status check_index_dtype(const StepDesc& desc, size_t input) {
  if (!desc.has_input(input)) return {};
  const DType t = desc.inputs[input].dtype;
  if (t == DType::kS32 || t == DType::kS64) return {};
  return invalid_model(std::string(desc.op) + ": input " + std::to_string(input) +
                       " must be int32 or int64, not " + name_of(t));
}

Status normalize_axis(int64_t axis, int rank, int* normalized) {
  if (axis < -rank || axis >= rank)
    return invalid_model("axis " + std::to_string(axis) + " is out of range for rank " +
                         std::to_string(rank));
  *normalized = static_cast<int>(axis < 0 ? axis + rank : axis);
  return {};
}

Status normalize_axes(const std::vector<int64_t>& axes, int rank, std::vector<int>* normalized) {
  if (axes.size() > static_cast<size_t>(kMaxRank)) return invalid_model("too many axes");
  unsigned seen = 0;
  normalized->clear();
  for (int64_t a : axes) {
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(a, rank, &axis));
    if (seen & (1u << axis)) return invalid_model("axis " + std::to_string(a) + " is given twice");
    seen |= 1u << axis;
    normalized->push_back(axis);
  }
  return {};
}

Status read_ints(const TensorInfo& info, const char* what, std::vector<int64_t>* values) {
  if (info.shape.rank > 1) return invalid_model(std::string(what) + " must be a vector");
  const int64_t n = info.shape.elements();
  values->clear();
  if (n == 0) return {};
  if (info.data == nullptr) return internal_error(std::string(what) + " is not known");
  if (info.dtype == DType::kS64) {
    const int64_t* data = static_cast<const int64_t*>(info.data);
    values->assign(data, data + n);
  } else if (info.dtype == DType::kS32) {
    const int32_t* data = static_cast<const int32_t*>(info.data);
    values->assign(data, data + n);
  } else {
    return invalid_model(std::string(what) + " must be int32 or int64");
  }
  return {};
}

Status require_ints(BindContext& context, int i, const char* what, std::vector<int64_t>* values) {
  const bool empty = context.input(i).shape.elements() == 0;  // nothing to wait for
  if (!empty && !context.require_value(i)) return BindContext::needs_value();
  return read_ints(context.input(i), what, values);
}

Status require_int(BindContext& context, int i, const char* what, int64_t* value) {
  std::vector<int64_t> values;
  LEPTON_RETURN_IF_ERROR(require_ints(context, i, what, &values));
  if (values.size() != 1) return invalid_model(std::string(what) + " must hold one value");
  *value = values[0];
  return {};
}

Status check_shape(const Shape& shape) {
  if (is_valid(shape)) return {};
  return invalid_input("shape " + shape.str() + " is negative or too large");
}

Strides strides_of(const Shape& shape) {
  Strides s;
  int64_t step = 1;
  for (int i = shape.rank - 1; i >= 0; --i) {
    s[i] = step;
    step *= shape[i];
  }
  return s;
}

Status nothing_to_run(BindContext& context) {
  context.set_run([](const RunArgs&) -> Status { return {}; });
  return {};
}

Status bind_copy(BindContext& context, int output, int input, const Shape& shape,
                 StridedCopy copy) {
  LEPTON_RETURN_IF_ERROR(check_shape(shape));
  LEPTON_RETURN_IF_ERROR(context.set_output(output, shape));
  context.set_run([copy, output, input](const RunArgs& args) -> Status {
    copy.run(args.in[input], args.out[output], args.parallel);
    return {};
  });
  return {};
}

}  // namespace lepton
