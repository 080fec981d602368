// Matrix multiplication of 8-bit integers, accumulated exactly in int32.
//
// "lepton.QLinearMatMul": acc = (A − a_zero_point) · (B − b_zero_point), then by the output's
// dtype:
//     u8, s8: clamp(rint((acc + bias)·scale) + y_zero_point, lo, hi); with R one of the additions
//             of epilogue.h: kRequantizeAdd with an attribute q_scale, else kRequantizeSum
//     f32:    clamp((acc + bias)·scale, min, max)
//     s32:    acc + bias
//   0 A      u8/s8 [..., m, k] or [k]
//   1 B      u8/s8 [..., k, n] or [k], constant or not. Or, with packed = 1, constant u8 bytes from
//            pack_gemm_s8 for the step's kernel (zero points already subtracted), and attributes k,
//            n and batch (the leading dimensions of a stack, absent for one matrix). Or the blob of
//            gemm_sparse.h, and attributes k and n
//   2 scale? f32, 1 or n entries, constant or not: (a_scale·b_scale[j]) / y_scale, or without
//            y_scale for f32; absent for s32
//   3 bias?  s32, n entries
//   4 R?     broadcasts one way to the output: u8/s8 with u8/s8 output, f32 with f32 output, where
//            it is added before the clamp
//   5 b_zero_point?  B's dtype; 1, n or batch·n entries; not with packed
//   6 a_zero_point?  A's dtype; 1 entry or one per row of A; replaces the attribute
//   attributes: packed, k, n, batch; a_zero_point (0); y_zero_point (0), lo, hi (the dtype's
//   range); r_scale, r_zero_point (with R); q_scale, out_scale, out_zero_point, out_lo, out_hi
//   (where q is rounded before R is added: y_zero_point, lo, hi and q_scale are then those of q, in
//   [−128, 255]); min, max (f32 output). Kernel: a line of gemm_s8_kernels.inc or
//   gemm_s8_sparse_kernels.inc, or none for the preferred one.
// "MatMulInteger" is ONNX's (A, B, a_zero_point?, b_zero_point?), output s32.
#include "ops/gemm_driver.h"
#include "ops/gemm_lhs.h"
#include "ops/gemm_sparse.h"
#include "ops/matmul_rhs.h"
#include "ops/matmul_shape.h"
#include "ops/op.h"
#include "ops/requantize.h"

namespace lepton {
namespace {

struct Operands {
  int a, b, scale, bias, residual, b_zero_point, a_zero_point;  // -1: the operator has none
};

struct BoundMatMulInteger {
  MatMulShape shape;
  GemmGrid grid;
  RowBroadcast residual;
  GemmS8Layout layout;       // of packed b
  size_t scale_offset = 0;   // scratch: one scale repeated n times, if it comes alone
  size_t rows_offset = 0;    // scratch: prepared rows and their zero points, per thread
  size_t rows_bytes = 0;     // of the rows
  size_t thread_bytes = 0;   // of both
  size_t a_rows = 0;         // of all matrices of a together
  size_t a_zero_points = 0;  // entries: 0 (the attribute), 1 or one per row
  size_t b_zero_points = 0;  // entries: 0, 1, n or b_matrices·n
  bool one_scale = false;
};

class MatMulIntegerOp final : public Op {
 public:
  Status init(const StepDesc& step, Operands operands);
  Status bind(BindContext& context) const override;

 private:
  bool has(const StepDesc& step, int operand) const {
    return operand >= 0 && step.has_input(static_cast<size_t>(operand));
  }
  Status check_dtypes(const StepDesc& step);
  Status init_requantize(const StepDesc& step);
  Status init_rhs(const StepDesc& step);
  Status pack_constant(Isa isa, const TensorInfo& b, const TensorInfo* points);
  Status check_b_zero_points(const BoundMatMulInteger& bound, Code code) const;
  Status bind_operands(BindContext& context, BoundMatMulInteger* bound) const;
  void bind_scratch(BindContext& context, size_t packed_all, BoundMatMulInteger* bound) const;
  Status dense_layout(const Shape& matrices, GemmS8Layout* layout, size_t* bytes) const;
  PackGemmS8 matrix_of(const BoundMatMulInteger& bound, const void* b, const void* zero_points,
                       size_t matrix) const;
  void pack_rhs(const BoundMatMulInteger& bound, const void* b, const void* zero_points,
                std::byte* packed, Parallel parallel) const;
  void run(const BoundMatMulInteger& bound, const RunArgs& args) const;
  void run_chunk(const BoundMatMulInteger& bound, const RunArgs& args, const GemmS8Plan& plan,
                 size_t batch, size_t a_index, const GemmChunk& chunk, int thread) const;
  template <typename T>
  void add_residual(const BoundMatMulInteger& bound, const RunArgs& args, const GemmChunk& chunk,
                    size_t row, GemmS8Block* block) const;
  const float* scales(const BoundMatMulInteger& bound, const RunArgs& args) const;
  int32_t a_zero_point(const RunArgs& args, size_t i) const;
  void prepare_rows(const BoundMatMulInteger& bound, const RunArgs& args, size_t first, size_t rows,
                    std::byte* dst) const;

  std::string name_;
  Operands operands_ = {};
  bool has_scale_ = false, has_bias_ = false, has_residual_ = false;
  bool has_a_zero_point_ = false, has_b_zero_point_ = false;
  DType a_dtype_ = DType::kU8, b_dtype_ = DType::kU8, dst_dtype_ = DType::kU8;
  DType r_dtype_ = DType::kUndefined;
  int32_t a_zero_point_ = 0;
  Requantize requantize_;
  float min_ = 0.f, max_ = 0.f;
  const GemmS8KernelInfo* kernel_ = nullptr;
  bool is_sparse_ = false;
  GemmS8Sparse sparse_;
  EpilogueS8Kernel epilogue_ = nullptr;
  GemmS8Lhs lhs_;
  MatMulRhs rhs_;
};

Status MatMulIntegerOp::init(const StepDesc& step, Operands operands) {
  name_ = step.name;
  operands_ = operands;
  if (!has(step, operands.a) || !has(step, operands.b) || step.outputs.size() != 1)
    return invalid_model(name_ + ": needs two operands and one output");
  has_scale_ = has(step, operands.scale);
  has_bias_ = has(step, operands.bias);
  has_residual_ = has(step, operands.residual);
  has_a_zero_point_ = has(step, operands.a_zero_point);
  has_b_zero_point_ = has(step, operands.b_zero_point);
  LEPTON_RETURN_IF_ERROR(check_dtypes(step));
  LEPTON_RETURN_IF_ERROR(init_requantize(step));
  LEPTON_RETURN_IF_ERROR(init_rhs(step));
  lhs_ = GemmS8Lhs(*kernel_, a_dtype_ == DType::kS8, step.isa);
  return {};
}

Status MatMulIntegerOp::check_dtypes(const StepDesc& step) {
  const auto dtype = [&](int operand) { return step.inputs[static_cast<size_t>(operand)].dtype; };
  a_dtype_ = dtype(operands_.a);
  b_dtype_ = dtype(operands_.b);
  dst_dtype_ = step.outputs[0];
  const bool narrow = is_8_bit(dst_dtype_);
  if (!is_8_bit(a_dtype_) || !is_8_bit(b_dtype_))
    return unsupported(name_ + ": operands are not 8-bit integers");
  if (!narrow && dst_dtype_ != DType::kF32 && dst_dtype_ != DType::kS32)
    return unsupported(name_ + ": output of " + name_of(dst_dtype_));
  if (has_scale_ != (dst_dtype_ != DType::kS32))
    return invalid_model(name_ + ": scale and output dtype do not agree");
  if (has_scale_ && dtype(operands_.scale) != DType::kF32)
    return unsupported(name_ + ": scale is not float32");
  if (has_bias_ && dtype(operands_.bias) != DType::kS32)
    return unsupported(name_ + ": bias is not int32");
  if (has_residual_ &&
      !(narrow ? is_8_bit(dtype(operands_.residual))
               : dst_dtype_ == DType::kF32 && dtype(operands_.residual) == DType::kF32))
    return unsupported(name_ + ": residual needs operand and output of 8 bits, or of floats");
  if (has_a_zero_point_ && dtype(operands_.a_zero_point) != a_dtype_)
    return invalid_model(name_ + ": a_zero_point has another dtype than A");
  if (has_b_zero_point_ && dtype(operands_.b_zero_point) != b_dtype_)
    return invalid_model(name_ + ": b_zero_point has another dtype than B");
  if (has_residual_) r_dtype_ = dtype(operands_.residual);
  return {};
}

Status MatMulIntegerOp::init_requantize(const StepDesc& step) {
  EpilogueS8Kind kind = dst_dtype_ == DType::kF32 ? EpilogueS8Kind::kF32 : EpilogueS8Kind::kS32;
  const Attrs& attrs = *step.attrs;
  LEPTON_RETURN_IF_ERROR(read_zero_point(attrs, "a_zero_point", a_dtype_, &a_zero_point_));
  LEPTON_RETURN_IF_ERROR(read_clamp(attrs, &min_, &max_));
  if (is_8_bit(dst_dtype_))
    LEPTON_RETURN_IF_ERROR(read_requantize(attrs, dst_dtype_, r_dtype_, &kind, &requantize_));
  epilogue_ = best_epilogue_s8(kind, step.isa);
  return {};
}

Status MatMulIntegerOp::init_rhs(const StepDesc& step) {
  const TensorInfo& b = step.inputs[static_cast<size_t>(operands_.b)];
  is_sparse_ = find_sparse(step.kernel, &kernel_);
  if (is_sparse_) {
    if (has_b_zero_point_)
      return invalid_model(name_ + ": b_zero_point belongs into the packed operand");
    return take_sparse_rhs(step, static_cast<size_t>(operands_.b), &rhs_, &sparse_);
  }
  // Unless values tell more: signed values without a zero point are what they are.
  kernel_ = &best_gemm_s8(step.isa, b_dtype_ == DType::kS8 && !has_b_zero_point_);
  if (!step.kernel.empty()) kernel_ = gemm_s8_kernels().find(step.kernel);
  if (kernel_ == nullptr)
    return invalid_model(name_ + ": kernel '" + std::string(step.kernel) + "' does not run here");
  if (step.attrs->i("packed") != 0) {
    if (has_b_zero_point_)
      return invalid_model(name_ + ": b_zero_point belongs into the packed operand");
    return take_packed(step, static_cast<size_t>(operands_.b), *kernel_, &rhs_);
  }
  if (!step.kernel.empty())
    return invalid_model(name_ + ": a kernel is named for an operand that is not packed");
  const TensorInfo* points =
      has_b_zero_point_ ? &step.inputs[static_cast<size_t>(operands_.b_zero_point)] : nullptr;
  if (!b.constant || b.shape.rank < 1 || (points != nullptr && !points->constant)) return {};
  return pack_constant(step.isa, b, points);
}

Status MatMulIntegerOp::pack_constant(Isa isa, const TensorInfo& b, const TensorInfo* points) {
  BoundMatMulInteger bound;
  const Shape matrices = as_matrices(b.shape);
  bound.shape.k = static_cast<size_t>(matrices[matrices.rank - 2]);
  bound.shape.n = static_cast<size_t>(matrices[matrices.rank - 1]);
  bound.shape.b_matrices = static_cast<size_t>(matrices.product(0, matrices.rank - 2));
  if (points != nullptr) bound.b_zero_points = static_cast<size_t>(points->shape.elements());
  LEPTON_RETURN_IF_ERROR(check_b_zero_points(bound, Code::kInvalidModel));
  const void* const zero_points = points == nullptr ? nullptr : points->data;
  bool fits = true;
  for (size_t i = 0; i < bound.shape.b_matrices && fits; ++i)
    fits = fits_s8(matrix_of(bound, b.data, zero_points, i));
  kernel_ = &best_gemm_s8(isa, fits);
  size_t all = 0;
  LEPTON_RETURN_IF_ERROR(dense_layout(matrices, &bound.layout, &all));
  rhs_.owned = allocate_bytes(all);
  if (rhs_.owned == nullptr) return {Code::kOutOfMemory, name_ + ": no memory for packed weights"};
  pack_rhs(bound, b.data, zero_points, rhs_.owned.get(), Parallel());
  rhs_.shape = b.shape;
  rhs_.packed = rhs_.owned.get();
  rhs_.layout = bound.layout;
  rhs_.at_run_time = false;
  return {};
}

Status MatMulIntegerOp::check_b_zero_points(const BoundMatMulInteger& bound, Code code) const {
  const size_t n = bound.shape.n, count = bound.b_zero_points;
  if (!has_b_zero_point_ || count == 1 || count == n || count == n * bound.shape.b_matrices)
    return {};
  return {code, name_ + ": " + std::to_string(count) + " zero points for " + std::to_string(n) +
                    " columns of B"};
}

Status MatMulIntegerOp::bind_operands(BindContext& context, BoundMatMulInteger* bound) const {
  const auto entries = [&](int operand) {
    return static_cast<size_t>(context.input(operand).shape.elements());
  };
  const size_t n = bound->shape.n;
  if (has_scale_) {
    const size_t count = entries(operands_.scale);
    bound->one_scale = count == 1 && n != 1;
    if (count != n && count != 1)
      return invalid_input(name_ + ": scale holds neither 1 nor n entries");
  }
  if (has_bias_ && entries(operands_.bias) != n)
    return invalid_input(name_ + ": bias does not hold n entries");
  if (has_a_zero_point_) {
    bound->a_zero_points = entries(operands_.a_zero_point);
    if (bound->a_zero_points != 1 && bound->a_zero_points != bound->a_rows)
      return invalid_input(name_ + ": a_zero_point holds neither 1 entry nor one per row of A");
  }
  if (has_b_zero_point_ && rhs_.at_run_time) {
    bound->b_zero_points = entries(operands_.b_zero_point);
    LEPTON_RETURN_IF_ERROR(check_b_zero_points(*bound, Code::kInvalidInput));
  }
  if (!has_residual_) return {};
  return row_broadcast(name_, context.input(operands_.residual).shape, bound->shape,
                       &bound->residual);
}

void MatMulIntegerOp::bind_scratch(BindContext& context, size_t packed_all,
                                   BoundMatMulInteger* bound) const {
  const size_t threads = static_cast<size_t>(context.threads());
  const size_t row_bytes = lhs_.row_bytes(bound->shape.k);
  const size_t batches = bound->shape.batches();
  // Many small products are shared out whole, few large ones are cut.
  const int cut_for = batches >= 4 * threads ? 1 : context.threads();
  bound->grid = gemm_grid(bound->shape.m, gemm_panels(*kernel_, bound->shape.n), kernel_->mr,
                          row_bytes, cut_for);
  if (batches == 0 || bound->grid.chunks() == 0) return;
  bound->scale_offset = rhs_.at_run_time ? packed_all : 0;
  const size_t scale_bytes = bound->one_scale ? bound->shape.n * sizeof(float) : 0;
  bound->rows_offset = bound->scale_offset + round_up(scale_bytes, kCacheLine);
  bound->rows_bytes = round_up(bound->grid.rows_per_chunk * row_bytes, kCacheLine);
  bound->thread_bytes =
      thread_share(bound->rows_bytes + bound->grid.rows_per_chunk * sizeof(int32_t));
  context.set_scratch(bound->rows_offset + bound->thread_bytes * threads);
}

Status MatMulIntegerOp::bind(BindContext& context) const {
  BoundMatMulInteger bound;
  const Shape& a = context.input(operands_.a).shape;
  const Shape& b = rhs_.at_run_time ? context.input(operands_.b).shape : rhs_.shape;
  LEPTON_RETURN_IF_ERROR(matmul_shape(name_, a, false, b, false, &bound.shape));
  bound.a_rows = static_cast<size_t>(a.product(0, a.rank - 1));
  LEPTON_RETURN_IF_ERROR(bind_operands(context, &bound));
  LEPTON_RETURN_IF_ERROR(context.set_output(0, bound.shape.output));
  size_t packed_all = 0;
  bound.layout = rhs_.layout;
  if (rhs_.at_run_time)
    LEPTON_RETURN_IF_ERROR(dense_layout(as_matrices(b), &bound.layout, &packed_all));
  bind_scratch(context, packed_all, &bound);
  context.set_run([this, bound](const RunArgs& args) {
    run(bound, args);
    return Status();
  });
  return {};
}

// Where pack_rhs puts the matrices, and their bytes.
Status MatMulIntegerOp::dense_layout(const Shape& matrices, GemmS8Layout* layout,
                                     size_t* bytes) const {
  LEPTON_RETURN_IF_ERROR(
      gemm_s8_layout(*kernel_, matrices[matrices.rank - 2], matrices[matrices.rank - 1], layout));
  size_t one = 0;
  return packed_stack_size(*kernel_, matrices, false, &one, bytes);
}

// What packing one matrix of b reads.
PackGemmS8 MatMulIntegerOp::matrix_of(const BoundMatMulInteger& bound, const void* b,
                                      const void* zero_points, size_t matrix) const {
  const size_t k = bound.shape.k, n = bound.shape.n;
  const bool per_matrix = bound.b_zero_points > 1 && bound.b_zero_points != n;
  PackGemmS8 pack = {};
  pack.k = k;
  pack.n = n;
  pack.b = static_cast<const uint8_t*>(b) + matrix * k * n;
  pack.b_signed = b_dtype_ == DType::kS8;
  pack.row_stride = n;
  pack.column_stride = 1;
  pack.zero_points = zero_points;
  if (per_matrix) pack.zero_points = static_cast<const uint8_t*>(zero_points) + matrix * n;
  pack.zero_point_stride = bound.b_zero_points > 1 ? 1 : 0;
  return pack;
}

void MatMulIntegerOp::pack_rhs(const BoundMatMulInteger& bound, const void* b,
                               const void* zero_points, std::byte* packed,
                               Parallel parallel) const {
  const size_t panels = gemm_panels(*kernel_, bound.shape.n);
  pack_in_parallel(parallel, bound.shape.b_matrices, panels,
                   gemm_panel_stride(*kernel_, bound.shape.k),
                   [&](size_t matrix, size_t first, size_t last) {
                     PackGemmS8 pack = matrix_of(bound, b, zero_points, matrix);
                     pack.packed = packed + matrix * bound.layout.matrix_bytes;
                     pack_gemm_s8(*kernel_, pack, first, last);
                   });
}

// n scales; a single one is repeated into the scratch.
const float* MatMulIntegerOp::scales(const BoundMatMulInteger& bound, const RunArgs& args) const {
  if (!has_scale_) return nullptr;
  const float* const scale = args.input<float>(operands_.scale);
  if (!bound.one_scale) return scale;
  float* const repeated = reinterpret_cast<float*>(args.scratch + bound.scale_offset);
  std::fill(repeated, repeated + bound.shape.n, scale[0]);
  return repeated;
}

void MatMulIntegerOp::run(const BoundMatMulInteger& bound, const RunArgs& args) const {
  const size_t chunks = static_cast<size_t>(bound.grid.chunks());
  const size_t batches = bound.shape.batches();
  if (batches == 0 || chunks == 0) return;
  const std::byte* packed = rhs_.packed;
  if (rhs_.at_run_time) {
    pack_rhs(bound, args.in[operands_.b],
             has_b_zero_point_ ? args.in[operands_.b_zero_point] : nullptr, args.scratch,
             args.parallel);
    packed = args.scratch;
  }
  GemmS8Plan plan = {};
  plan.kernel = kernel_;
  plan.sparse = is_sparse_ ? &sparse_ : nullptr;
  plan.epilogue = epilogue_;
  plan.k = bound.shape.k;
  plan.n = bound.shape.n;
  plan.panel_stride = bound.layout.panel_stride;
  plan.bias = has_bias_ ? args.input<int32_t>(operands_.bias) : nullptr;
  plan.scale = scales(bound, args);
  plan.requantize = requantize_;
  plan.zero_point = lhs_.zero_point_left(a_zero_point(args, 0));
  plan.min = min_;
  plan.max = max_;
  plan.r_signed = r_dtype_ == DType::kS8;
  plan.dst_size = size_of(dst_dtype_);
  args.parallel.loop(static_cast<int64_t>(batches * chunks), [&](int64_t i, int thread) {
    const size_t batch = static_cast<size_t>(i) / chunks;
    size_t a_index, b_index;
    bound.shape.locate(batch, &a_index, &b_index);
    GemmS8Plan product = plan;
    product.packed = packed + b_index * bound.layout.matrix_bytes;
    const GemmChunk chunk = bound.grid.chunk(static_cast<int64_t>(static_cast<size_t>(i) % chunks));
    run_chunk(bound, args, product, batch, a_index, chunk, thread);
  });
}

// The zero point of row i; all rows share one unless each has its own.
int32_t MatMulIntegerOp::a_zero_point(const RunArgs& args, size_t i) const {
  if (!has_a_zero_point_) return a_zero_point_;
  return a_dtype_ == DType::kS8 ? args.input<int8_t>(operands_.a_zero_point)[i]
                                : args.input<uint8_t>(operands_.a_zero_point)[i];
}

// Rows [first, first + rows) of all rows of a; one by one where each has its own zero point.
void MatMulIntegerOp::prepare_rows(const BoundMatMulInteger& bound, const RunArgs& args,
                                   size_t first, size_t rows, std::byte* dst) const {
  const size_t k = bound.shape.k, stride = lhs_.row_stride(k);
  const uint8_t* const src = args.input<uint8_t>(operands_.a) + first * k;
  if (bound.a_zero_points <= 1)
    return lhs_.prepare(rows, k, stride, src, k, a_zero_point(args, 0), dst, stride);
  for (size_t i = 0; i < rows; ++i)
    lhs_.prepare(1, k, stride, src + i * k, k, a_zero_point(args, first + i),
                 dst + i * lhs_.row_bytes(k), stride);
}

void MatMulIntegerOp::run_chunk(const BoundMatMulInteger& bound, const RunArgs& args,
                                const GemmS8Plan& plan, size_t batch, size_t a_index,
                                const GemmChunk& chunk, int thread) const {
  const size_t m = bound.shape.m, n = plan.n;
  const size_t row = batch * m + chunk.row, first = a_index * m + chunk.row;
  std::byte* const scratch =
      args.scratch + bound.rows_offset + static_cast<size_t>(thread) * bound.thread_bytes;
  GemmS8Block block = {};
  block.m = chunk.rows;
  block.row_stride = lhs_.row_stride(plan.k);
  if (lhs_.reads_in_place(plan.k)) {
    block.rows = args.input<uint8_t>(operands_.a) + first * plan.k;
  } else {
    prepare_rows(bound, args, first, chunk.rows, scratch);
    block.rows = scratch;
  }
  if (bound.a_zero_points > 1) {
    int32_t* const left = reinterpret_cast<int32_t*>(scratch + bound.rows_bytes);
    for (size_t i = 0; i < chunk.rows; ++i)
      left[i] = lhs_.zero_point_left(a_zero_point(args, first + i));
    block.zero_points = left;
  }
  block.first = chunk.first;
  block.last = chunk.last;
  block.dst = args.output<uint8_t>(0) + row * n * plan.dst_size;
  block.dst_stride = n;
  if (has_residual_ && plan.dst_size == 1) add_residual<uint8_t>(bound, args, chunk, row, &block);
  if (has_residual_ && plan.dst_size == 4) add_residual<float>(bound, args, chunk, row, &block);
  if (batch + 1 == bound.shape.batches() && bound.grid.is_last(chunk)) block.ahead = args.ahead;
  gemm_s8_block(plan, block);
}

// Lets the block add its part of R: where R lies, or expanded to where the result will be.
template <typename T>
void MatMulIntegerOp::add_residual(const BoundMatMulInteger& bound, const RunArgs& args,
                                   const GemmChunk& chunk, size_t row, GemmS8Block* block) const {
  const T* const residual = args.input<T>(operands_.residual);
  if (bound.residual.direct) {
    block->residual = residual + bound.residual.row_stride * row;
    block->residual_stride = bound.residual.row_stride;
    return;
  }
  const size_t n = bound.shape.n, nr = static_cast<size_t>(kernel_->nr);
  bound.residual.expand(residual, row, chunk.rows, chunk.first * nr, std::min(chunk.last * nr, n),
                        n, static_cast<T*>(block->dst), [](T r) { return r; });
  block->residual = block->dst;
  block->residual_stride = n;
}

Status make_op(const StepDesc& step, Operands operands, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<MatMulIntegerOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step, operands));
  *op = std::move(made);
  return {};
}

}  // namespace

Status make_qlinear_matmul(const StepDesc& step, std::unique_ptr<Op>* op) {
  return make_op(step, {0, 1, 2, 3, 4, 5, 6}, op);
}

Status make_matmul_integer(const StepDesc& step, std::unique_ptr<Op>* op) {
  return make_op(step, {0, 1, -1, -1, -1, 3, 2}, op);
}

}  // namespace lepton
