// Programs of lepton.Elementwise: the parsed form and its parser.
//
// Values are numbered: first the inputs (registers r0 …), then the literals, then one result per
// instruction. "Identity" makes no instruction: it names an existing value.
#pragma once

#include <string_view>
#include <vector>

#include "core/isa.h"
#include "core/status.h"
#include "ops/elementwise.h"

namespace lepton {

constexpr int kMaxProgramInputs = 32;
constexpr int kMaxInstructions = 128;
constexpr int kMaxValues = kMaxProgramInputs + kMaxInstructions * kMaxOperands;

union Literal {
  float f32;
  double f64;
  int64_t i64;
  uint64_t u64;
};

struct Instruction {
  MicroOp op;
  MicroFn fn;
  int num_operands;
  int operand[kMaxOperands];  // values
  int result;                 // value
};

struct Program {
  Compute compute = Compute::kF32;
  int num_inputs = 0;
  std::vector<Literal> literals;
  std::vector<Instruction> instructions;
  int result = 0;    // value
  int64_t cost = 0;  // per element, in vector additions

  int first_result() const { return num_inputs + static_cast<int>(literals.size()); }
  int num_values() const { return first_result() + static_cast<int>(instructions.size()); }
};

// "Add r0 r1;Mul r2 #0.5". kUnsupported for an op that the compute type does not have,
// kInvalidModel for anything malformed.
Status parse_program(std::string_view text, Compute compute, int num_inputs, Isa isa,
                     Program* program);

constexpr size_t size_of(Compute c) { return c == Compute::kF32 ? 4 : 8; }

}  // namespace lepton
