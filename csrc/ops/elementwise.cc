#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "ops/elementwise_bind.h"
#include "ops/elementwise_op.h"

namespace lepton {
namespace {

// Vector additions worth waking a thread for: some tens of microseconds.
constexpr int64_t kChunkWork = 1 << 17;

bool is_float(DType t) {
  return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16 || t == DType::kF64;
}

// Integers that float32 holds exactly.
bool is_short(DType t) { return lepton::size_of(t) <= 2 && !is_float(t); }

// An absent `compute`: float64 when one is read, float32 when any other float is read or made, be
// it between a Dequantize and a Quantize, else integers.
Compute default_compute(const StepDesc& step) {
  const std::string_view program = step.attrs->s("program");
  bool any_float = is_float(step.outputs[0]) || program.find("uantize") != std::string_view::npos;
  for (const TensorInfo& input : step.inputs) {
    if (input.dtype == DType::kF64) return Compute::kF64;
    any_float = any_float || is_float(input.dtype);
  }
  if (step.outputs[0] == DType::kF64) return Compute::kF64;
  return any_float ? Compute::kF32 : Compute::kI64;
}

// Whether a program over small integers gives the same in float32: every value it can make stays
// below 2^24. Masks and bytes are far quicker there.
bool is_exact_in_f32(const Program& program) {
  constexpr int64_t kInput = 1 << 16, kLimit = 1 << 24;
  std::vector<int64_t> bound(static_cast<size_t>(program.num_inputs), kInput);
  for (const Literal& literal : program.literals) {
    if (literal.i64 < -kLimit || literal.i64 > kLimit) return false;
    bound.push_back(std::abs(literal.i64));
  }
  for (const Instruction& instruction : program.instructions) {
    int64_t sum = 0, largest = 0;
    for (int i = 0; i < instruction.num_operands; ++i) {
      sum += bound[static_cast<size_t>(instruction.operand[i])];
      largest = std::max(largest, bound[static_cast<size_t>(instruction.operand[i])]);
    }
    switch (instruction.op) {
      case MicroOp::kNot:
      case MicroOp::kAnd:
      case MicroOp::kOr:
      case MicroOp::kXor:
      case MicroOp::kEqual:
      case MicroOp::kGreater:
      case MicroOp::kLess:
      case MicroOp::kGreaterOrEqual:
      case MicroOp::kLessOrEqual:
      case MicroOp::kSign: bound.push_back(1); break;
      case MicroOp::kMin:
      case MicroOp::kMax:
      case MicroOp::kRelu:
      case MicroOp::kClip:
      case MicroOp::kAbs:
      case MicroOp::kNeg:
      case MicroOp::kWhere: bound.push_back(largest); break;
      case MicroOp::kAdd:
      case MicroOp::kSub: bound.push_back(sum); break;
      default: return false;
    }
    if (bound.back() > kLimit) return false;
  }
  return true;
}

}  // namespace

Compute compute_for(DType dtype) {
  if (dtype == DType::kF64) return Compute::kF64;
  return is_float(dtype) ? Compute::kF32 : Compute::kI64;
}

Status ElementwiseOp::create(const StepDesc& step, std::string_view text, Compute compute,
                             std::unique_ptr<ElementwiseOp>* op) {
  std::unique_ptr<ElementwiseOp> made(new ElementwiseOp);
  LEPTON_RETURN_IF_ERROR(made->init(step, text, compute));
  *op = std::move(made);
  return {};
}

Status ElementwiseOp::init(const StepDesc& step, std::string_view text, Compute compute) {
  if (step.outputs.size() != 1) return invalid_model("expected one output");
  out_ = step.outputs[0];
  if (!is_number(out_)) return unsupported("output dtype");
  isa_ = step.isa;
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    if (!step.has_input(i)) return invalid_model("an input of an elementwise program is missing");
    if (!is_number(step.inputs[i].dtype)) return unsupported("input dtype");
    stored_.push_back(step.inputs[i].dtype);
  }
  const bool reads_u64 = std::find(stored_.begin(), stored_.end(), DType::kU64) != stored_.end();
  if (compute == Compute::kI64 && reads_u64) compute = Compute::kU64;
  const int inputs = static_cast<int>(step.inputs.size());
  LEPTON_RETURN_IF_ERROR(parse_program(text, compute, inputs, isa_, &program_));
  const bool all_short = std::all_of(stored_.begin(), stored_.end(), is_short);
  const bool may_change = compute == Compute::kI64 && !program_.instructions.empty();
  if (may_change && all_short && is_exact_in_f32(program_))
    return parse_program(text, Compute::kF32, inputs, isa_, &program_);
  return {};
}

Status ElementwiseOp::input_shapes(const BindContext& context, std::vector<Shape>* shapes) const {
  for (int i = 0; i < program_.num_inputs; ++i) shapes->push_back(context.input(i).shape);
  return {};
}

Status ElementwiseOp::bind(BindContext& context) const {
  std::vector<Shape> shapes;
  LEPTON_RETURN_IF_ERROR(input_shapes(context, &shapes));
  if (shapes.size() != stored_.size()) return internal_error("a shape for every input is needed");
  Shape shape;
  LEPTON_RETURN_IF_ERROR(broadcast_shapes(shapes, &shape));
  LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
  for (int i = 0; i < program_.num_inputs; ++i)
    if (context.input(i).shape == shape &&
        lepton::size_of(stored_[static_cast<size_t>(i)]) == lepton::size_of(out_))
      context.allow_in_place(0, i);

  auto bound =
      std::make_shared<const BoundElementwise>(program_, stored_, out_, shapes, shape, isa_);
  int64_t chunks = 1;
  if (context.threads() > 1)
    chunks = std::min({bound->work() / kChunkWork, bound->tiles(), int64_t{4} * context.threads()});
  const size_t stride = thread_share(bound->scratch_bytes());
  if (chunks <= 1) {
    context.set_scratch(stride);
    context.set_run([bound](const RunArgs& args) -> Status {
      bound->run(args, 0, bound->tiles(), args.scratch);
      return {};
    });
    return {};
  }
  context.set_scratch(stride * static_cast<size_t>(context.threads()));
  context.set_run([bound, chunks, stride](const RunArgs& args) -> Status {
    args.parallel.loop(chunks, [&](int64_t c, int thread) {
      bound->run(args, bound->tiles() * c / chunks, bound->tiles() * (c + 1) / chunks,
                 args.scratch + static_cast<size_t>(thread) * stride);
    });
    return {};
  });
  return {};
}

Status make_elementwise(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (step.outputs.size() != 1) return invalid_model("Elementwise makes one output");
  const std::string_view name = step.attrs->s("compute");
  Compute compute = default_compute(step);
  if (name == "f32")
    compute = Compute::kF32;
  else if (name == "f64")
    compute = Compute::kF64;
  else if (name == "i64")
    compute = Compute::kI64;
  else if (!name.empty())
    return invalid_model("compute type '" + std::string(name) + "'");
  std::unique_ptr<ElementwiseOp> made;
  LEPTON_RETURN_IF_ERROR(ElementwiseOp::create(step, step.attrs->s("program"), compute, &made));
  *op = std::move(made);
  return {};
}

Status make_cast(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (step.inputs.size() != 1 || step.outputs.size() != 1)
    return invalid_model("Cast takes one input and makes one output");
  const DType from = step.inputs[0].dtype, to = step.outputs[0];
  const bool exact_in_f32 = is_short(from) && is_float(to) && to != DType::kF64;
  std::unique_ptr<ElementwiseOp> made;
  LEPTON_RETURN_IF_ERROR(ElementwiseOp::create(
      step, "Identity r0", exact_in_f32 ? Compute::kF32 : compute_for(from), &made));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
