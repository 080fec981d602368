#include "ops/elementwise_program.h"

#include <charconv>
#include <cstdlib>
#include <limits>
#include <string>

#include "ops/convert.h"
#include "ops/kernel_list.h"

namespace lepton {
namespace {

struct ElementwiseInfo {
  std::string_view name;
  Isa isa;
  MicroKernelsFn run;
};
const ElementwiseInfo kElementwise[] = {
#define LEPTON_ELEMENTWISE(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/elementwise_kernels.inc"
#undef LEPTON_ELEMENTWISE
};

struct ConvertInfo {
  std::string_view name;
  Isa isa;
  ConvertKernels (*run)();
};
const ConvertInfo kConvert[] = {
#define LEPTON_CONVERT(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/convert_kernels.inc"
#undef LEPTON_CONVERT
};

ConvertFn find_convert(Compute compute, DType dtype, Isa max, ConvertFn ConvertKernel::* which) {
  for (const ConvertInfo& info : kConvert) {
    if (info.run == nullptr || !is_within(info.isa, max) || !machine_has(info.isa)) continue;
    const ConvertKernels kernels = info.run();
    for (size_t i = 0; i < kernels.size; ++i) {
      const ConvertKernel& k = kernels.list[i];
      if (k.compute == compute && k.dtype == dtype && k.*which != nullptr) return k.*which;
    }
  }
  return nullptr;
}

struct OpInfo {
  std::string_view name;
  int fewest, most, cost;
};
const OpInfo kOps[] = {
#define LEPTON_MICRO_OP(name, fewest, most, cost) {#name, fewest, most, cost},
#include "ops/elementwise_ops.inc"
#undef LEPTON_MICRO_OP
};

// Default of an omitted trailing operand. Infinities stand for the ends of the compute type's
// range.
double default_operand(MicroOp op, int i) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  switch (op) {
    case MicroOp::kClip: return i == 1 ? -kInf : kInf;
    case MicroOp::kLeakyRelu: return 0.01;
    case MicroOp::kSelu: return i == 1 ? 1.67326319217681884765625 : 1.05070102214813232421875;
    case MicroOp::kHardSigmoid: return i == 1 ? 0.2 : 0.5;
    case MicroOp::kShrink: return i == 1 ? 0.5 : 0;
    case MicroOp::kDequantize: return 0;
    case MicroOp::kQuantize: return i == 2 ? 0 : i == 3 ? -kInf : kInf;
    default: return 1;  // Elu, Celu, Swish, ThresholdedRelu, IsInf
  }
}

template <typename I>
I clamp_to(double v) {
  if (!(v > static_cast<double>(std::numeric_limits<I>::min())))
    return std::numeric_limits<I>::min();
  if (!(v < static_cast<double>(std::numeric_limits<I>::max())))
    return std::numeric_limits<I>::max();
  return static_cast<I>(v);
}

Literal make_literal(Compute compute, double v) {
  Literal literal{};
  switch (compute) {
    case Compute::kF32: literal.f32 = static_cast<float>(v); break;
    case Compute::kF64: literal.f64 = v; break;
    case Compute::kI64: literal.i64 = clamp_to<int64_t>(v); break;
    case Compute::kU64: literal.u64 = clamp_to<uint64_t>(v); break;
  }
  return literal;
}

// The whole text as a number of type T: decimal, independent of the locale.
template <typename T>
bool parse_number(std::string_view text, T* value) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const char* end = text.data() + text.size();
#if defined(__cpp_lib_to_chars)
  const auto [stop, error] = std::from_chars(text.data(), end, *value);
  if (error == std::errc::result_out_of_range && !std::is_integral<T>::value) {
    // Too small or too large for T: the double tells which.
    double wide = 0;
    const auto again = std::from_chars(text.data(), end, wide);
    if (again.ec != std::errc() || again.ptr != end) return false;
    *value = static_cast<T>(wide);
    return true;
  }
  return error == std::errc() && stop == end;
#else
  if constexpr (std::is_integral<T>::value) {
    const auto [stop, error] = std::from_chars(text.data(), end, *value);
    return error == std::errc() && stop == end;
  } else {
    const std::string copy(text);
    char* stop = nullptr;
    *value = sizeof(T) == 4 ? static_cast<T>(std::strtof(copy.c_str(), &stop))
                            : static_cast<T>(std::strtod(copy.c_str(), &stop));
    return !copy.empty() && stop == copy.c_str() + copy.size();
  }
#endif
}

bool parse_literal(std::string_view text, Compute compute, Literal* literal) {
  *literal = Literal{};
  switch (compute) {
    case Compute::kF32: return parse_number(text, &literal->f32);
    case Compute::kF64: return parse_number(text, &literal->f64);
    default: break;
  }
  if (parse_number(text, &literal->i64)) return true;
  if (compute == Compute::kU64 && parse_number(text, &literal->u64)) return true;
  double v = 0;  // "inf", "1.0", "1e3"
  if (!parse_number(text, &v) || v != v) return false;
  *literal = make_literal(compute, v);
  return true;
}

// Takes the text up to the separator off the front.
std::string_view take(std::string_view* text, char separator) {
  const size_t end = text->find(separator);
  const std::string_view head = text->substr(0, end);
  text->remove_prefix(end == std::string_view::npos ? text->size() : end + 1);
  return head;
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
  while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
  return s;
}

class Parser {
 public:
  Parser(Compute compute, int num_inputs, Isa isa, Program* program)
      : isa_(isa), program_(program) {
    program_->compute = compute;
    program_->num_inputs = num_inputs;
    for (int i = 0; i < num_inputs; ++i) registers_.push_back(i);
  }

  Status parse(std::string_view text) {
    while (!text.empty()) {
      const std::string_view instruction = trim(take(&text, ';'));
      if (instruction.empty()) continue;
      if (static_cast<int>(registers_.size()) >= program_->num_inputs + kMaxInstructions)
        return invalid_model("Elementwise program is too long");
      LEPTON_RETURN_IF_ERROR(parse_instruction(instruction));
    }
    if (static_cast<int>(registers_.size()) == program_->num_inputs)
      return invalid_model("Elementwise program is empty");
    return number_values();
  }

 private:
  // Until all are known, literal j is numbered kLiteral + j and result j kResult + j.
  static constexpr int kLiteral = 1 << 20, kResult = 1 << 21;

  Status parse_instruction(std::string_view text) {
    const std::string name(take(&text, ' '));
    int op = 0;
    while (op < static_cast<int>(std::size(kOps)) && kOps[op].name != name) ++op;
    if (op == static_cast<int>(std::size(kOps)))
      return unsupported("no elementwise instruction '" + name + "'");
    Instruction instruction{};
    instruction.op = static_cast<MicroOp>(op);
    while (!text.empty()) {
      const std::string_view operand = take(&text, ' ');
      if (operand.empty()) continue;
      if (instruction.num_operands == kOps[op].most)
        return invalid_model("too many operands of '" + name + "'");
      LEPTON_RETURN_IF_ERROR(
          parse_operand(operand, &instruction.operand[instruction.num_operands++]));
    }
    if (instruction.num_operands < kOps[op].fewest)
      return invalid_model("too few operands of '" + name + "'");
    for (int& i = instruction.num_operands; i < kOps[op].most; ++i)
      instruction.operand[i] =
          add_literal(make_literal(program_->compute, default_operand(instruction.op, i)));
    return append(instruction);
  }

  Status append(Instruction instruction) {
    if (instruction.op == MicroOp::kIdentity) {
      registers_.push_back(instruction.operand[0]);
      return {};
    }
    if (instruction.op == MicroOp::kPow) replace_power(&instruction);
    instruction.fn = find_micro(instruction.op, program_->compute, isa_);
    if (instruction.fn == nullptr)
      return unsupported("'" + std::string(kOps[static_cast<int>(instruction.op)].name) +
                         "' has no kernel for this compute type");
    registers_.push_back(kResult + static_cast<int>(program_->instructions.size()));
    program_->instructions.push_back(instruction);
    program_->cost += kOps[static_cast<int>(instruction.op)].cost;
    return {};
  }

  // x to a literal power that has a cheaper instruction.
  void replace_power(Instruction* instruction) {
    const int exponent = instruction->operand[1];
    if (exponent < kLiteral || exponent >= kResult) return;
    const Literal& literal = program_->literals[static_cast<size_t>(exponent - kLiteral)];
    double value = 0;
    if (program_->compute == Compute::kF32)
      value = static_cast<double>(literal.f32);
    else if (program_->compute == Compute::kF64)
      value = literal.f64;
    else
      value = static_cast<double>(literal.i64);
    const bool is_float = program_->compute == Compute::kF32 || program_->compute == Compute::kF64;
    if (value == 2) {
      instruction->op = MicroOp::kMul;
      instruction->operand[1] = instruction->operand[0];
    } else if (is_float && (value == 0.5 || value == -1)) {
      instruction->op = value == 0.5 ? MicroOp::kSqrt : MicroOp::kReciprocal;
      instruction->num_operands = 1;
    }
  }

  Status parse_operand(std::string_view text, int* value) {
    if (text.front() == '#') {
      Literal literal;
      if (!parse_literal(text.substr(1), program_->compute, &literal))
        return invalid_model("bad literal '" + std::string(text) + "'");
      *value = add_literal(literal);
      return {};
    }
    int64_t index = -1;
    if (text.front() != 'r' || !parse_number(text.substr(1), &index) || index < 0 ||
        index >= static_cast<int64_t>(registers_.size()))
      return invalid_model("bad operand '" + std::string(text) + "'");
    *value = registers_[static_cast<size_t>(index)];
    return {};
  }

  int add_literal(Literal literal) {
    program_->literals.push_back(literal);
    return kLiteral + static_cast<int>(program_->literals.size()) - 1;
  }

  Status number_values() {
    const auto number = [&](int v) {
      if (v >= kResult) return v - kResult + program_->first_result();
      return v >= kLiteral ? v - kLiteral + program_->num_inputs : v;
    };
    int next = program_->first_result();
    for (Instruction& instruction : program_->instructions) {
      for (int i = 0; i < instruction.num_operands; ++i)
        instruction.operand[i] = number(instruction.operand[i]);
      instruction.result = next++;
    }
    program_->result = number(registers_.back());
    return {};
  }

  Isa isa_;
  Program* program_;
  std::vector<int> registers_;
};

}  // namespace

MicroFn find_micro(MicroOp op, Compute compute, Isa max) {
  for (const ElementwiseInfo& info : kElementwise) {
    if (info.run == nullptr || !is_within(info.isa, max) || !machine_has(info.isa)) continue;
    const MicroKernels kernels = info.run();
    for (size_t i = 0; i < kernels.size; ++i)
      if (kernels.list[i].op == op && kernels.list[i].compute == compute) return kernels.list[i].fn;
  }
  return nullptr;
}

ConvertFn find_load(Compute compute, DType dtype, Isa max) {
  return find_convert(compute, dtype, max, &ConvertKernel::load);
}
ConvertFn find_store(Compute compute, DType dtype, Isa max) {
  return find_convert(compute, dtype, max, &ConvertKernel::store);
}

Status parse_program(std::string_view text, Compute compute, int num_inputs, Isa isa,
                     Program* program) {
  if (num_inputs > kMaxProgramInputs)
    return unsupported("too many inputs of an Elementwise program");
  *program = Program{};
  return Parser(compute, num_inputs, isa, program).parse(text);
}

}  // namespace lepton
