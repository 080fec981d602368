// RotaryEmbedding, as ONNX defines it, in float32.
//
//   0 X [batch, heads, rows, depth], or [batch, rows, heads * depth] with num_heads
//   1 cos, 2 sin: [positions, dim / 2] with position_ids, else [batch or 1, rows, dim / 2]
//   3 position_ids? int64 [batch or 1, rows]
//   attributes: rotary_embedding_dim (0: depth), num_heads, interleaved
#include "ops/rotary.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <string>

#include "ops/kernel_list.h"
#include "ops/movement.h"

namespace lepton {
namespace {

struct RotaryInfo {
  std::string_view name;
  Isa isa;
  RotaryKernels (*run)();
};
const RotaryInfo kInfo[] = {
#define LEPTON_ROTARY(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/rotary_kernels.inc"
#undef LEPTON_ROTARY
};
constexpr KernelList<RotaryInfo> kList = {kInfo, sizeof kInfo / sizeof kInfo[0]};

// Elements worth a task of their own.
constexpr int64_t kGrain = 1 << 13;

struct BoundRotary {
  int64_t batch, heads, rows, depth, dim;
  int64_t head_stride, row_stride;  // of X within one batch, in elements
  int64_t positions;                // rows of the caches, with position_ids
  bool one_batch;                   // of angles, for all batches
};

class RotaryOp final : public Op {
 public:
  explicit RotaryOp(const StepDesc& step)
      : dim_(step.attrs->i("rotary_embedding_dim")),
        heads_(step.attrs->i("num_heads")),
        has_ids_(step.has_input(3)),
        turn_(step.attrs->i("interleaved") != 0 ? kList.best(step.isa)->run().interleaved
                                                : kList.best(step.isa)->run().halves) {}

  Status bind(BindContext& context) const override {
    BoundRotary bound = {};
    LEPTON_RETURN_IF_ERROR(shape_of_x(context.input(0).shape, &bound));
    LEPTON_RETURN_IF_ERROR(shape_of_angles(context, &bound));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, context.input(0).shape));
    context.allow_in_place(0, 0);
    if (context.input(0).shape.elements() == 0) return nothing_to_run(context);
    context.set_run([this, bound](const RunArgs& args) { return run(bound, args); });
    return {};
  }

 private:
  Status shape_of_x(const Shape& x, BoundRotary* b) const {
    if (x.rank == 4) {
      *b = {x[0], x[1], x[2], x[3], 0, x[2] * x[3], x[3], 0, false};
    } else if (x.rank == 3 && heads_ > 0 && x[2] % heads_ == 0) {
      const int64_t depth = x[2] / heads_;
      *b = {x[0], heads_, x[1], depth, 0, depth, x[2], 0, false};
    } else {
      return invalid_input("RotaryEmbedding: X " + x.str() + " with " + std::to_string(heads_) +
                           " heads");
    }
    b->dim = dim_ == 0 ? b->depth : dim_;
    if (b->dim < 0 || b->dim > b->depth || b->dim % 2 != 0)
      return invalid_input("RotaryEmbedding: cannot turn " + std::to_string(b->dim) + " of " +
                           std::to_string(b->depth) + " values");
    return {};
  }

  Status shape_of_angles(BindContext& context, BoundRotary* b) const {
    const Shape& cos = context.input(1).shape;
    bool fits = cos == context.input(2).shape && cos.rank == (has_ids_ ? 2 : 3) &&
                cos[cos.rank - 1] == b->dim / 2;
    const Shape& per_row = has_ids_ ? context.input(3).shape : cos;
    fits = fits && per_row.rank == (has_ids_ ? 2 : 3) && per_row[1] == b->rows &&
           (per_row[0] == 1 || per_row[0] == b->batch);
    if (!fits)
      return invalid_input("RotaryEmbedding: angles " + cos.str() + " for X " +
                           context.input(0).shape.str());
    b->positions = cos[0];
    b->one_batch = per_row[0] == 1;
    return {};
  }

  Status run(const BoundRotary& b, const RunArgs& args) const {
    std::atomic<bool> in_range{true};
    const int64_t grain = kGrain / (b.heads * b.depth + 1);
    parallel_ranges(args.parallel, b.batch * b.rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at)
        if (!run_row(b, args, at / b.rows, at % b.rows)) in_range.store(false);
    });
    return in_range ? Status() : invalid_input("RotaryEmbedding: position_ids out of range");
  }

  // All heads of one row; false when its position is none of the caches'.
  bool run_row(const BoundRotary& b, const RunArgs& args, int64_t batch, int64_t row) const {
    int64_t position = (b.one_batch ? 0 : batch * b.rows) + row;
    if (has_ids_) {
      position = args.input<int64_t>(3)[position];
      if (position < 0) position += b.positions;
      if (position < 0 || position >= b.positions) return false;
    }
    const int64_t half = b.dim / 2, rest = b.depth - b.dim;
    const float* const cos = args.input<float>(1) + position * half;
    const float* const sin = args.input<float>(2) + position * half;
    const int64_t start = batch * b.heads * b.rows * b.depth + row * b.row_stride;
    for (int64_t h = 0; h < b.heads; ++h) {
      const float* const x = args.input<float>(0) + start + h * b.head_stride;
      float* const y = args.output<float>(0) + start + h * b.head_stride;
      turn_(x, cos, sin, static_cast<size_t>(half), y);
      if (rest != 0 && x != y)
        std::memcpy(y + b.dim, x + b.dim, static_cast<size_t>(rest) * sizeof(float));
    }
    return true;
  }

  int64_t dim_, heads_;
  bool has_ids_;
  void (*turn_)(const float*, const float*, const float*, size_t, float*);
};

}  // namespace

Status make_rotary_embedding(const StepDesc& step, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(step, 3, 4));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(step, 0, 0));
  for (size_t i = 0; i < 3; ++i)
    if (step.inputs[i].dtype != DType::kF32) return unsupported("dtype of an input");
  if (step.has_input(3) && step.inputs[3].dtype != DType::kS64)
    return invalid_model("position_ids are not int64");
  *op = std::make_unique<RotaryOp>(step);
  return {};
}

}  // namespace lepton
