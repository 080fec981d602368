// elementwise: micro-ops over tiles, the instructions of lepton.Elementwise programs.
//
//   out[i] = op(in0[i], in1[i], …)     i < n
//
// All operands and the result are arrays of the compute type. An operand whose bit is set in
// `splat` is one value that stands for the whole tile: only its element 0 is readable. n may be any
// number; nothing beyond element n is read or written; no alignment. `out` may be exactly one of
// the operands (same pointer, not splat, or n = 1), and overlaps none of them otherwise.
//
// Formulas are ONNX's. Logic: zero is false, results are 1 and 0. NaN passes through Min, Max, Relu
// and Clip. Round and rint: ties to even. i64 and u64 wrap modulo 2^64; x / 0 = x mod 0 = 0.
//   Dequantize(x, s, z) = (x − z) · s
//   Quantize(x, s, z, lo, hi) = min(max(rint(x / s) + z, lo), hi), NaN gives lo
// These two, the arithmetic, comparisons and rounding are bit-identical on every ISA.
// Transcendental functions may differ between ISAs within 4 ulp (Erf, Gelu, Mish, Softplus: 1e-6
// relative or 1e-7 absolute).
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

enum class MicroOp : uint8_t {
#define LEPTON_MICRO_OP(name, fewest, most, cost) k##name,
#include "ops/elementwise_ops.inc"
#undef LEPTON_MICRO_OP
};

// u64 is what the driver makes of i64 when a uint64 tensor is read: it differs in order, division
// and shifts only.
enum class Compute : uint8_t { kF32, kF64, kI64, kU64 };

constexpr int kMaxOperands = 5;

struct MicroArgs {
  size_t n;
  const void* in[kMaxOperands];
  void* out;
  uint32_t splat;
};
using MicroFn = void (*)(const MicroArgs&);

// What one ISA has: a list of implementations, not necessarily of every op. The scalar list is
// complete.
struct MicroKernel {
  MicroOp op;
  Compute compute;
  MicroFn fn;
};
struct MicroKernels {
  const MicroKernel* list;
  size_t size;
};
using MicroKernelsFn = MicroKernels (*)();

#define LEPTON_ELEMENTWISE(name, isa) MicroKernels name();
#include "ops/elementwise_kernels.inc"
#undef LEPTON_ELEMENTWISE

// The best implementation within the cap; null when no ISA has the op for this compute type.
enum class Isa : uint8_t;
MicroFn find_micro(MicroOp op, Compute compute, Isa max);

}  // namespace lepton
