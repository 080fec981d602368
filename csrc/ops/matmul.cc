// Matrix multiplication in float32 (8-bit integers: matmul_integer.cc).
//
// "lepton.MatMul": y = clamp(A · (alpha·B) + bias + beta·R, min, max)
//   0 A     f32 [..., m, k] or [k]; with transA = 1 [..., k, m]
//   1 B     f32 [..., k, n] or [k], constant or not; with transB = 1 [..., n, k]. Or, with packed =
//           1, constant u8 bytes from pack_gemm_f32 or pack_gemm_bf16 for the step's kernel, and
//           attributes k, n and batch (the leading dimensions of a stack, absent for one matrix);
//           transB and alpha are then folded into the bytes. Or, for a kernel of
//           gemm_f32_sparse_kernels.inc, the blob of gemm_sparse.h
//   2 bias? f32, n entries, constant or not
//   3 R?    f32, broadcasts one way to the output
//   attributes: packed, k, n, batch, transA, transB (0); alpha, beta (1); min, max (no clamp).
//   Shapes are ONNX MatMul's, 1-D operands included. Kernel: a line of gemm_f32_kernels.inc,
//   gemm_bf16_kernels.inc or gemm_f32_sparse_kernels.inc, or none for the preferred one of the
//   first.
// "MatMul" is the same with A and B alone; "Gemm" is ONNX's (A, B, C?, alpha, beta, transA,
// transB).
#include "ops/gemm_bf16_kernels.h"
#include "ops/gemm_driver.h"
#include "ops/gemm_sparse.h"
#include "ops/matmul_rhs.h"
#include "ops/matmul_shape.h"
#include "ops/op.h"
#include "ops/requantize.h"

namespace lepton {
namespace {

struct Operands {
  int a, b, bias, residual;  // -1: the operator has none
};

// What bind computes for one set of shapes.
struct BoundMatMul {
  MatMulShape shape;
  GemmGrid grid;
  RowBroadcast residual;
  size_t packed_bytes = 0;  // of one matrix of b
  // Scratch of a thread, from rows_offset on: transposed rows, then partial sums.
  size_t rows_offset = 0, rows_bytes = 0, partial_bytes = 0;
  size_t thread_bytes() const { return thread_share(rows_bytes + partial_bytes); }
};

class MatMulOp final : public Op {
 public:
  Status init(const StepDesc& step, Operands operands);
  Status bind(BindContext& context) const override;

 private:
  Status init_rhs(const StepDesc& step);
  Status bind_residual(BindContext& context, BoundMatMul* bound) const;
  GemmGrid grid_of(const MatMulShape& shape, bool transposed_a, int threads) const;
  size_t partial_floats(const BoundMatMul& bound) const;
  void pack_rhs(const BoundMatMul& bound, const float* b, std::byte* packed,
                Parallel parallel) const;
  void run(const BoundMatMul& bound, const RunArgs& args) const;
  void run_chunk(const BoundMatMul& bound, const RunArgs& args, const GemmF32Plan& plan,
                 size_t batch, size_t a_index, const GemmChunk& chunk, int thread) const;
  const float* lhs_rows(const BoundMatMul& bound, const RunArgs& args, size_t a_index,
                        const GemmChunk& chunk, int thread) const;

  std::string name_;
  Operands operands_ = {};
  bool has_bias_ = false, has_residual_ = false, transposed_a_ = false;
  float alpha_ = 1.f, beta_ = 1.f, min_ = 0.f, max_ = 0.f;
  const GemmF32KernelInfo* kernel_ = nullptr;
  EpilogueF32Kernel epilogue_ = nullptr;
  MatMulRhs rhs_;
  const GemmBf16KernelInfo* bf16_ = nullptr;  // of weights kept so, then kernel_ is for many rows
  bool is_sparse_ = false;
  GemmF32Sparse sparse_;
};

Status MatMulOp::init(const StepDesc& step, Operands operands) {
  name_ = step.name;
  operands_ = operands;
  if (!step.has_input(operands.a) || !step.has_input(operands.b) || step.outputs.size() != 1)
    return invalid_model(name_ + ": needs two operands and one output");
  for (size_t i = 0; i < step.inputs.size(); ++i)
    if (step.has_input(i) && step.inputs[i].dtype != DType::kF32 && i != 1)
      return unsupported(name_ + ": operands of " + name_of(step.inputs[i].dtype));
  if (step.outputs[0] != DType::kF32) return unsupported(name_ + ": output is not float32");
  has_bias_ = operands.bias >= 0 && step.has_input(operands.bias);
  has_residual_ = operands.residual >= 0 && step.has_input(operands.residual);
  transposed_a_ = step.attrs->i("transA") != 0;
  alpha_ = step.attrs->f("alpha", 1.f);
  beta_ = step.attrs->f("beta", 1.f);
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &min_, &max_));
  const auto list = gemm_f32_kernels();
  is_sparse_ = find_sparse(step.kernel, &kernel_);
  if (!is_sparse_) bf16_ = find_gemm_bf16(step.kernel, &kernel_);
  if (!is_sparse_ && bf16_ == nullptr)
    kernel_ = step.kernel.empty() ? list.best(step.isa) : list.find(step.kernel);
  if (kernel_ == nullptr)
    return invalid_model(name_ + ": kernel '" + std::string(step.kernel) + "' does not run here");
  epilogue_ = best_epilogue_f32(step.isa);
  return init_rhs(step);
}

Status MatMulOp::init_rhs(const StepDesc& step) {
  const TensorInfo& b = step.inputs[operands_.b];
  if (step.attrs->i("packed") != 0) {
    if (alpha_ != 1.f || step.attrs->i("transB") != 0)
      return invalid_model(name_ + ": alpha and transB belong into the packed operand");
    if (is_sparse_) return take_sparse_rhs(step, operands_.b, &rhs_, &sparse_);
    if (bf16_ != nullptr) return take_packed(step, operands_.b, *bf16_, &rhs_);
    return take_packed(step, operands_.b, *kernel_, &rhs_);
  }
  if (is_sparse_ || bf16_ != nullptr)
    return invalid_model(name_ + ": a sparse or bfloat16 operand has to be packed");
  if (b.dtype != DType::kF32) return unsupported(name_ + ": operands of " + name_of(b.dtype));
  rhs_.transposed = step.attrs->i("transB") != 0 && !(b.constant && b.shape.rank == 1);
  if (!b.constant || b.shape.rank < 1) return {};
  const Shape matrices = as_matrices(b.shape);
  size_t one = 0, all = 0;
  LEPTON_RETURN_IF_ERROR(packed_stack_size(*kernel_, matrices, rhs_.transposed, &one, &all));
  rhs_.owned = allocate_bytes(all);
  if (rhs_.owned == nullptr) return {Code::kOutOfMemory, name_ + ": no memory for packed weights"};
  BoundMatMul bound;
  const int64_t rows = matrices[matrices.rank - 2], columns = matrices[matrices.rank - 1];
  bound.shape.k = static_cast<size_t>(rhs_.transposed ? columns : rows);
  bound.shape.n = static_cast<size_t>(rhs_.transposed ? rows : columns);
  bound.shape.b_matrices = static_cast<size_t>(matrices.product(0, matrices.rank - 2));
  bound.packed_bytes = one;
  pack_rhs(bound, static_cast<const float*>(b.data), rhs_.owned.get(), Parallel());
  rhs_.shape = b.shape;
  rhs_.packed = rhs_.owned.get();
  rhs_.at_run_time = false;
  return {};
}

Status MatMulOp::bind_residual(BindContext& context, BoundMatMul* bound) const {
  if (has_bias_ &&
      context.input(operands_.bias).shape.elements() != static_cast<int64_t>(bound->shape.n))
    return invalid_input(name_ + ": bias " + context.input(operands_.bias).shape.str() +
                         " does not hold one entry per column");
  if (!has_residual_) return {};
  return row_broadcast(name_, context.input(operands_.residual).shape, bound->shape,
                       &bound->residual);
}

Status MatMulOp::bind(BindContext& context) const {
  BoundMatMul bound;
  MatMulShape& shape = bound.shape;
  const Shape& a = context.input(operands_.a).shape;
  const Shape& b = rhs_.at_run_time ? context.input(operands_.b).shape : rhs_.shape;
  const bool transposed_a = transposed_a_ && a.rank > 1,
             transposed_b = rhs_.transposed && b.rank > 1;
  LEPTON_RETURN_IF_ERROR(matmul_shape(name_, a, transposed_a, b, transposed_b, &shape));
  LEPTON_RETURN_IF_ERROR(bind_residual(context, &bound));
  LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.output));
  size_t packed_all = 0;
  const Shape matrices = as_matrices(b);
  LEPTON_RETURN_IF_ERROR(
      bf16_ != nullptr
          ? packed_stack_size(*bf16_, matrices, false, &bound.packed_bytes, &packed_all)
          : packed_stack_size(*kernel_, matrices, transposed_b, &bound.packed_bytes, &packed_all));
  const size_t batches = shape.batches();
  const int threads = context.threads();
  // Many small products are shared out whole, few large ones are cut.
  const bool whole = batches >= 4 * static_cast<size_t>(threads);
  bound.grid = grid_of(shape, transposed_a, whole ? 1 : threads);
  const bool empty = batches == 0 || bound.grid.chunks() == 0;
  if (!empty && rhs_.at_run_time) bound.rows_offset = packed_all;
  if (!empty && transposed_a)
    bound.rows_bytes = round_up(bound.grid.rows_per_chunk * shape.k * sizeof(float), kCacheLine);
  if (!empty && !is_sparse_) bound.partial_bytes = partial_floats(bound) * sizeof(float);
  context.set_scratch(bound.rows_offset + bound.thread_bytes() * static_cast<size_t>(threads));
  context.set_run([this, bound](const RunArgs& args) {
    run(bound, args);
    return Status();
  });
  return {};
}

size_t MatMulOp::partial_floats(const BoundMatMul& bound) const {
  if (gemm_bf16_rounds(bf16_, bound.shape.m))
    return gemm_bf16_partial(*bf16_, bound.grid, bound.shape.k);
  return gemm_f32_partial(*kernel_, bound.grid, bound.shape.k);
}

GemmGrid MatMulOp::grid_of(const MatMulShape& shape, bool transposed_a, int threads) const {
  if (!is_sparse_) return gemm_f32_grid(*kernel_, shape.m, shape.n, shape.k, transposed_a, threads);
  return gemm_grid(shape.m, gemm_panels(*kernel_, shape.n), kernel_->mr, shape.k * sizeof(float),
                   threads);
}

void MatMulOp::pack_rhs(const BoundMatMul& bound, const float* b, std::byte* packed,
                        Parallel parallel) const {
  const size_t k = bound.shape.k, n = bound.shape.n;
  const size_t panel_bytes = gemm_panel_stride(*kernel_, k) * sizeof(float);
  pack_in_parallel(parallel, bound.shape.b_matrices, gemm_panels(*kernel_, n), panel_bytes,
                   [&](size_t matrix, size_t first, size_t last) {
                     PackGemmF32 pack;
                     pack.k = k;
                     pack.n = n;
                     pack.b = b + matrix * k * n;
                     pack.row_stride = rhs_.transposed ? 1 : n;
                     pack.column_stride = rhs_.transposed ? k : 1;
                     pack.packed = reinterpret_cast<float*>(packed + matrix * bound.packed_bytes);
                     pack.alpha = alpha_;
                     pack_gemm_f32(*kernel_, pack, first, last);
                   });
}

void MatMulOp::run(const BoundMatMul& bound, const RunArgs& args) const {
  const std::byte* packed = rhs_.packed;
  const size_t chunks = static_cast<size_t>(bound.grid.chunks());
  const size_t batches = bound.shape.batches();
  if (batches == 0 || chunks == 0) return;
  if (rhs_.at_run_time) {
    pack_rhs(bound, args.input<float>(operands_.b), args.scratch, args.parallel);
    packed = args.scratch;
  }
  args.parallel.loop(static_cast<int64_t>(batches * chunks), [&](int64_t i, int thread) {
    const size_t batch = static_cast<size_t>(i) / chunks;
    size_t a_index, b_index;
    bound.shape.locate(batch, &a_index, &b_index);
    GemmF32Plan plan = {};
    plan.kernel = kernel_;
    plan.sparse = is_sparse_ ? &sparse_ : nullptr;
    plan.bf16 = bf16_;
    plan.rounds_rows = gemm_bf16_rounds(bf16_, bound.shape.m);
    plan.epilogue = epilogue_;
    plan.k = bound.shape.k;
    plan.n = bound.shape.n;
    plan.packed = packed + b_index * bound.packed_bytes;
    plan.bias = has_bias_ ? args.input<float>(operands_.bias) : nullptr;
    plan.min = min_;
    plan.max = max_;
    const GemmChunk chunk = bound.grid.chunk(static_cast<int64_t>(static_cast<size_t>(i) % chunks));
    run_chunk(bound, args, plan, batch, a_index, chunk, thread);
  });
}

// This thread's scratch from `offset` bytes on.
float* thread_scratch(const BoundMatMul& bound, const RunArgs& args, int thread, size_t offset) {
  const size_t start = static_cast<size_t>(thread) * bound.thread_bytes() + offset;
  return reinterpret_cast<float*>(args.scratch + bound.rows_offset + start);
}

// The chunk's rows of a; transposed into this thread's scratch where a lies the other way.
const float* MatMulOp::lhs_rows(const BoundMatMul& bound, const RunArgs& args, size_t a_index,
                                const GemmChunk& chunk, int thread) const {
  const size_t m = bound.shape.m, k = bound.shape.k;
  const float* a = args.input<float>(operands_.a) + a_index * m * k;
  if (bound.rows_bytes == 0) return a + chunk.row * k;
  float* const rows = thread_scratch(bound, args, thread, 0);
  for (size_t p = 0; p < k; ++p)
    for (size_t i = 0; i < chunk.rows; ++i) rows[i * k + p] = a[p * m + chunk.row + i];
  return rows;
}

void MatMulOp::run_chunk(const BoundMatMul& bound, const RunArgs& args, const GemmF32Plan& plan,
                         size_t batch, size_t a_index, const GemmChunk& chunk, int thread) const {
  const size_t n = plan.n;
  const size_t row = batch * bound.shape.m + chunk.row;
  float* const dst = args.output<float>(0) + row * n;
  GemmF32Block block = {};
  block.m = chunk.rows;
  block.rows = lhs_rows(bound, args, a_index, chunk, thread);
  block.row_stride = plan.k;
  block.first = chunk.first;
  block.last = chunk.last;
  block.dst = dst;
  block.dst_stride = n;
  if (bound.partial_bytes != 0)
    block.partial = thread_scratch(bound, args, thread, bound.rows_bytes);
  if (has_residual_) {
    const float* const residual = args.input<float>(operands_.residual);
    if (bound.residual.direct && beta_ == 1.f) {
      block.residual = residual + bound.residual.row_stride * row;
      block.residual_stride = bound.residual.row_stride;
    } else {
      const size_t nr = static_cast<size_t>(kernel_->nr);
      bound.residual.expand(residual, row, chunk.rows, chunk.first * nr,
                            std::min(chunk.last * nr, n), n, dst,
                            [this](float r) { return beta_ * r; });
      block.residual = dst;
      block.residual_stride = n;
    }
  }
  gemm_f32_block(plan, block);
}

Status make_op(const StepDesc& step, Operands operands, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<MatMulOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step, operands));
  *op = std::move(made);
  return {};
}

}  // namespace

Status make_matmul(const StepDesc& step, std::unique_ptr<Op>* op) {
  return make_op(step, {0, 1, 2, 3}, op);
}

Status make_gemm(const StepDesc& step, std::unique_ptr<Op>* op) {
  return make_op(step, {0, 1, -1, 2}, op);
}

}  // namespace lepton
