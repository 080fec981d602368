// "lepton.DynamicQuantizeMatMul": a float operand, quantised by the range it has at run time, times
// 8-bit weights, accumulated exactly in int32:
//
//     y = clamp(float(acc)·(a_scale·b_scale[j]) + bias[j] + R, min, max)
//     acc = sum over p of (a_q[i][p] − a_zero_point)·(B[p][j] − b_zero_point[j])
//
// A has one scale and zero point (dynamic_quantize.h), or with per_row = 1 each of its rows its own
// (quantize_rows.h), and then float(acc) is multiplied by b_scale[j] first and a_scale[i] second.
//
//   0 A      f32 [..., m, k] or [k]
//   1 B      constant u8 bytes from pack_gemm_s8 for the step's kernel (zero points already
//            subtracted); attributes packed = 1, k, n
//   2 scale  f32, 1 or n entries, constant
//   3 bias?  f32, n entries
//   4 R?     f32, the output's shape
//   attributes: packed, k, n; per_row (0); min, max (no clamp). Kernel: a line of
//   gemm_s8_kernels.inc, or of gemm_s8_sparse_kernels.inc with B the blob of gemm_sparse.h.
//
// A is read twice, for its range and to quantise it into scratch; with one scale, each chunk of the
// product then prepares its rows as MatMulInteger does.
#include <algorithm>
#include <memory>
#include <string>

#include "ops/dynamic_quantize.h"
#include "ops/gemm_driver.h"
#include "ops/gemm_lhs.h"
#include "ops/gemm_sparse.h"
#include "ops/matmul_rhs.h"
#include "ops/matmul_shape.h"
#include "ops/op.h"
#include "ops/requantize.h"
#include "ops/row_quantizer.h"

namespace lepton {
namespace {

struct BoundDynamic {
  MatMulShape shape;
  GemmGrid grid;
  DynamicQuantizer::Bound range;
  size_t a_offset = 0;      // scratch: A quantised
  size_t scale_offset = 0;  // scratch: a_scale·b_scale[j], or b_scale[j]
  size_t rows_offset = 0;   // scratch: prepared rows, per thread
  size_t rows_bytes = 0;
  size_t scales = 0;  // entries: 1 or n
};

class DynamicQuantizeMatMulOp final : public Op {
 public:
  explicit DynamicQuantizeMatMulOp(Isa isa) : quantizer_(isa) {}
  Status init(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  Status check_operands(BindContext& context, BoundDynamic* bound) const;
  void bind_scratch(BindContext& context, BoundDynamic* bound) const;
  void run(const BoundDynamic& bound, const RunArgs& args) const;
  void run_rows(const BoundDynamic& bound, const RunArgs& args) const;
  void scale_columns(const BoundDynamic& bound, const RunArgs& args, float a_scale) const;
  GemmS8Plan plan_of(const BoundDynamic& bound, const RunArgs& args) const;
  GemmS8Block block_of(const BoundDynamic& bound, const RunArgs& args,
                       const GemmChunk& chunk) const;
  void run_chunk(const BoundDynamic& bound, const RunArgs& args, const GemmS8Plan& plan,
                 int32_t zero_point, const GemmChunk& chunk, int thread) const;

  std::string name_;
  DynamicQuantizer quantizer_;
  RowQuantizer row_quantizer_;
  bool per_row_ = false, has_bias_ = false, has_residual_ = false;
  float min_ = 0.f, max_ = 0.f;
  const GemmS8KernelInfo* kernel_ = nullptr;
  bool is_sparse_ = false;
  GemmS8Sparse sparse_;
  EpilogueS8Kernel epilogue_ = nullptr;
  GemmS8Lhs lhs_;
  MatMulRhs rhs_;
};

Status DynamicQuantizeMatMulOp::init(const StepDesc& step) {
  name_ = step.name;
  if (!step.has_input(0) || !step.has_input(1) || !step.has_input(2) || step.outputs.size() != 1)
    return invalid_model(name_ + ": needs A, B, a scale and one output");
  for (size_t i = 0; i < step.inputs.size(); ++i)
    if (i != 1 && step.has_input(i) && step.inputs[i].dtype != DType::kF32)
      return unsupported(name_ + ": operands of " + name_of(step.inputs[i].dtype));
  if (step.outputs[0] != DType::kF32) return unsupported(name_ + ": output is not float32");
  if (step.attrs->i("packed") == 0) return unsupported(name_ + ": B is not packed");
  is_sparse_ = find_sparse(step.kernel, &kernel_);
  const auto list = gemm_s8_kernels();
  if (!is_sparse_) kernel_ = list.find(step.kernel);
  if (kernel_ == nullptr)
    return invalid_model(name_ + ": kernel '" + std::string(step.kernel) + "' does not run here");
  has_bias_ = step.has_input(3);
  has_residual_ = step.has_input(4);
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &min_, &max_));
  epilogue_ = best_epilogue_s8(EpilogueS8Kind::kF32, step.isa);
  lhs_ = GemmS8Lhs(*kernel_, false, step.isa);
  row_quantizer_ = RowQuantizer(lhs_, step.isa);
  per_row_ = step.attrs->i("per_row") != 0;
  if (is_sparse_) return take_sparse_rhs(step, 1, &rhs_, &sparse_);
  LEPTON_RETURN_IF_ERROR(take_packed(step, 1, *kernel_, &rhs_));
  return rhs_.shape.rank == 2 ? Status() : invalid_model(name_ + ": B is a stack of matrices");
}

Status DynamicQuantizeMatMulOp::check_operands(BindContext& context, BoundDynamic* bound) const {
  const auto entries = [&](int i) {
    return static_cast<size_t>(context.input(i).shape.elements());
  };
  bound->scales = entries(2);
  if (bound->scales != 1 && bound->scales != bound->shape.n)
    return invalid_input(name_ + ": scale holds neither 1 nor n entries");
  if (has_bias_ && entries(3) != bound->shape.n)
    return invalid_input(name_ + ": bias does not hold n entries");
  if (has_residual_ && !(context.input(4).shape == bound->shape.output))
    return invalid_input(name_ + ": residual of shape " + context.input(4).shape.str());
  return {};
}

void DynamicQuantizeMatMulOp::bind_scratch(BindContext& context, BoundDynamic* bound) const {
  const size_t threads = static_cast<size_t>(context.threads());
  const size_t row_bytes = lhs_.row_bytes(bound->shape.k);
  const size_t panels = gemm_panels(*kernel_, bound->shape.n);
  bound->grid = gemm_grid(bound->shape.m, panels, kernel_->mr, row_bytes, context.threads());
  if (bound->grid.chunks() == 0) return;
  const size_t scale_bytes = round_up(bound->shape.n * sizeof(float), kCacheLine);
  if (per_row_) {
    bound->a_offset = scale_bytes;
    context.set_scratch(scale_bytes + row_quantizer_.scratch_bytes(bound->shape.m, bound->shape.k));
    return;
  }
  bound->a_offset = bound->range.scratch_bytes();
  bound->scale_offset = bound->a_offset + round_up(bound->shape.m * bound->shape.k, kCacheLine);
  bound->rows_offset = bound->scale_offset + scale_bytes;
  bound->rows_bytes = thread_share(bound->grid.rows_per_chunk * row_bytes);
  context.set_scratch(bound->rows_offset + bound->rows_bytes * threads);
}

Status DynamicQuantizeMatMulOp::bind(BindContext& context) const {
  BoundDynamic bound;
  const Shape& a = context.input(0).shape;
  LEPTON_RETURN_IF_ERROR(matmul_shape(name_, a, false, rhs_.shape, false, &bound.shape));
  LEPTON_RETURN_IF_ERROR(check_operands(context, &bound));
  LEPTON_RETURN_IF_ERROR(context.set_output(0, bound.shape.output));
  bound.range = DynamicQuantizer::bind(a.elements(), context.threads());
  bind_scratch(context, &bound);
  context.set_run([this, bound](const RunArgs& args) {
    if (bound.grid.chunks() == 0) return Status();
    per_row_ ? run_rows(bound, args) : run(bound, args);
    return Status();
  });
  return {};
}

void DynamicQuantizeMatMulOp::scale_columns(const BoundDynamic& bound, const RunArgs& args,
                                            float a_scale) const {
  float* const scale = reinterpret_cast<float*>(args.scratch + bound.scale_offset);
  const float* const b_scale = args.input<float>(2);
  for (size_t j = 0; j < bound.shape.n; ++j)
    scale[j] = a_scale * b_scale[bound.scales == 1 ? 0 : j];
}

// All but what depends on the range of A.
GemmS8Plan DynamicQuantizeMatMulOp::plan_of(const BoundDynamic& bound, const RunArgs& args) const {
  GemmS8Plan plan = {};
  plan.kernel = kernel_;
  plan.sparse = is_sparse_ ? &sparse_ : nullptr;
  plan.epilogue = epilogue_;
  plan.k = bound.shape.k;
  plan.n = bound.shape.n;
  plan.packed = rhs_.packed;
  plan.panel_stride = rhs_.layout.panel_stride;
  plan.scale = reinterpret_cast<const float*>(args.scratch + bound.scale_offset);
  if (has_bias_) plan.float_bias = args.input<float>(3);
  plan.min = min_;
  plan.max = max_;
  plan.dst_size = sizeof(float);
  return plan;
}

// All but the rows of A.
GemmS8Block DynamicQuantizeMatMulOp::block_of(const BoundDynamic& bound, const RunArgs& args,
                                              const GemmChunk& chunk) const {
  const size_t n = bound.shape.n;
  GemmS8Block block = {};
  block.m = chunk.rows;
  block.first = chunk.first;
  block.last = chunk.last;
  if (has_residual_) block.residual = args.input<float>(4) + chunk.row * n;
  block.residual_stride = n;
  block.dst = args.output<float>(0) + chunk.row * n;
  block.dst_stride = n;
  if (bound.grid.is_last(chunk)) block.ahead = args.ahead;
  return block;
}

void DynamicQuantizeMatMulOp::run(const BoundDynamic& bound, const RunArgs& args) const {
  const float* const a = args.input<float>(0);
  const auto range = quantizer_.range(bound.range, a, args.scratch, args.parallel);
  uint8_t* const quantized = reinterpret_cast<uint8_t*>(args.scratch + bound.a_offset);
  quantizer_.quantize(bound.range, a, range, quantized, args.parallel);
  scale_columns(bound, args, range.scale);
  GemmS8Plan plan = plan_of(bound, args);
  plan.zero_point = lhs_.zero_point_left(range.zero_point);
  args.parallel.loop(bound.grid.chunks(), [&](int64_t i, int thread) {
    run_chunk(bound, args, plan, range.zero_point, bound.grid.chunk(i), thread);
  });
}

void DynamicQuantizeMatMulOp::run_chunk(const BoundDynamic& bound, const RunArgs& args,
                                        const GemmS8Plan& plan, int32_t zero_point,
                                        const GemmChunk& chunk, int thread) const {
  const size_t k = plan.k, stride = lhs_.row_stride(k);
  const std::byte* rows = args.scratch + bound.a_offset + chunk.row * k;
  if (!lhs_.reads_in_place(k)) {
    std::byte* const prepared =
        args.scratch + bound.rows_offset + static_cast<size_t>(thread) * bound.rows_bytes;
    lhs_.prepare(chunk.rows, k, stride, rows, k, zero_point, prepared, stride);
    rows = prepared;
  }
  GemmS8Block block = block_of(bound, args, chunk);
  block.rows = rows;
  block.row_stride = stride;
  gemm_s8_block(plan, block);
}

void DynamicQuantizeMatMulOp::run_rows(const BoundDynamic& bound, const RunArgs& args) const {
  const size_t k = bound.shape.k;
  const RowQuantizer::Rows rows = row_quantizer_.quantize(
      args.input<float>(0), bound.shape.m, k, k, args.scratch + bound.a_offset, args.parallel);
  scale_columns(bound, args, 1.f);
  const GemmS8Plan plan = plan_of(bound, args);
  args.parallel.loop(bound.grid.chunks(), [&](int64_t i, int) {
    const GemmChunk chunk = bound.grid.chunk(i);
    GemmS8Block block = block_of(bound, args, chunk);
    block.rows = rows.rows + chunk.row * rows.stride;
    block.row_stride = lhs_.row_stride(k);
    if (rows.zero_point != nullptr) block.zero_points = rows.zero_point + chunk.row;
    block.row_scale = rows.scale + chunk.row;
    gemm_s8_block(plan, block);
  });
}

}  // namespace

Status make_dynamic_quantize_matmul(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<DynamicQuantizeMatMulOp>(step.isa);
  LEPTON_RETURN_IF_ERROR(made->init(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
