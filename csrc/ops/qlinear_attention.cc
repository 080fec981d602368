// "lepton.QLinearAttention": attention over 8-bit operands, all of it between integers:
//
//   S = requantise((Q − q_zero)(K − k_zero)ᵀ)  u8, s8, or f32: the product as lepton.QLinearMatMul
//   X = scores(S, mask)                        an elementwise program or a table; f32
//   P = probabilities(softmax(X))              an elementwise program; u8 or s8
//   Y = requantise((P − p_zero)(V − v_zero))   u8 or s8
//
//   0 Q, 1 K, 2 V  u8/s8, laid out as attention.h says (layouts, 3-D operands, grouped heads)
//   3 mask?        f32, operand of the program for scores; its last dimension is that of the keys
//   7 scale        f32, 1 entry: of the first product      8 scale: of the second
//   9 table?       f32, 256 entries
//   attributes: those of attention.h but for causality and windows; "product.NAME", "result.NAME":
//   those of the two QLinearMatMul (a_zero_point, y_zero_point, lo, hi; and here b_zero_point);
//   "scores.NAME", "probabilities.NAME": those of the two lepton.Elementwise; scores_dtype,
//   p_dtype; scores_input: which operand of the program the scores are.
//
// One task is one head of keys and values: both are packed once, then tiles of query rows take
// their scores against all keys, which stay in L2 until the second product has read them. The
// softmax is the one of the operator Softmax, over whole rows, so that every number is the one
// that the separate operators make.
#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "ops/attention.h"
#include "ops/gemm_driver.h"
#include "ops/gemm_lhs.h"
#include "ops/joined_step.h"
#include "ops/movement.h"
#include "ops/requantize.h"
#include "ops/softmax_kernels.h"

namespace lepton {
namespace {

constexpr size_t kMask = 3, kProductScale = 7, kResultScale = 8, kTable = 9;
constexpr size_t kTileBytes = 256 * 1024;  // float scores of one tile of rows
constexpr size_t kMostTileRows = 96;

// One of the two integer products.
struct Product {
  const GemmS8KernelInfo* kernel = nullptr;
  EpilogueS8Kernel epilogue = nullptr;
  GemmS8Lhs lhs;
  Requantize requantize;
  float min = 0.f, max = 0.f;
  int32_t lhs_zero = 0;
  uint8_t rhs_zero = 0;  // in the bits of its own type
  bool rhs_signed = false;
  DType dst = DType::kU8;
};

// An inner operator, bound to one height of a tile.
struct Inner {
  RunFn run;
  size_t scratch = 0;
};

struct BoundQLinearAttention {
  AttentionShape shape;
  size_t tile_rows = 0, row_tasks = 0, task_rows = 0;
  GemmS8Layout k_layout, v_layout;
  std::array<Inner, 2> scores, probabilities;  // of whole tiles, and of the last
  size_t scale_bytes[2] = {0, 0};              // scratch of all threads: scales, repeated
  // A thread's scratch, by part.
  size_t k = 0, v = 0, rows = 0, s = 0, x = 0, p = 0, inner = 0;
  size_t thread_bytes() const { return thread_share(k + v + rows + s + x + p + inner); }
};

class QLinearAttentionOp final : public Op {
 public:
  Status init(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  struct Task;
  Status init_product(const StepDesc& step, const char* prefix, DType lhs, DType rhs, DType dst,
                      Product* product) const;
  Status init_inner(const StepDesc& step);
  Status bind_inner(const BindContext& context, BoundQLinearAttention* bound) const;
  Status bind_tile(const BindContext& context, size_t rows, const AttentionShape& shape,
                   Inner* scores, Inner* probabilities) const;
  Status plan_scratch(int threads, BoundQLinearAttention* bound) const;
  void run(const BoundQLinearAttention& bound, const RunArgs& args) const;
  void run_task(const Task& task) const;
  void run_tile(const Task& task, size_t head, size_t row, size_t rows) const;
  void multiply(const Product& product, size_t k, size_t n, const std::byte* packed,
                size_t panel_stride, const float* scale, const void* lhs, size_t lhs_stride,
                size_t rows, std::byte* prepared, void* dst, size_t dst_stride) const;
  static void pack(const Product& product, const void* from, size_t k, size_t n, size_t row_stride,
                   size_t column_stride, std::byte* packed);

  AttentionAttrs attrs_;
  Attrs scores_attrs_, probabilities_attrs_;
  std::unique_ptr<Op> scores_, probabilities_;
  bool has_mask_ = false, has_table_ = false, mask_first_ = false;
  DType p_dtype_ = DType::kU8;
  Product product_, result_;
  SoftmaxKernels softmax_ = {};
};

// What the tiles of one head share.
struct QLinearAttentionOp::Task {
  const BoundQLinearAttention& bound;
  const RunArgs& args;
  const float *product_scale, *result_scale;
  size_t batch, kv_head, row, rows;
  std::byte *k, *v, *prepared, *s, *x, *p, *inner;
};

Status QLinearAttentionOp::init(const StepDesc& step) {
  LEPTON_RETURN_IF_ERROR(read_attention_attrs(step, &attrs_));
  for (size_t i : {size_t{0}, size_t{1}, size_t{2}, kProductScale, kResultScale})
    if (!step.has_input(i)) return invalid_model("an operand is missing");
  if (step.outputs.size() != 1 || step.has_input(4) || step.has_input(5) || step.has_input(6))
    return unsupported("state, or more than one output");
  if (attrs_.causal || attrs_.left >= 0 || attrs_.right >= 0)
    return unsupported("causality or a window");
  has_mask_ = step.has_input(kMask);
  has_table_ = step.has_input(kTable);
  mask_first_ = step.attrs->i("scores_input") == 1;
  for (size_t i : {kMask, kProductScale, kResultScale, kTable})
    if (step.has_input(i) && step.inputs[i].dtype != DType::kF32)
      return unsupported("a mask or scale of another dtype than float32");
  const DType scores = static_cast<DType>(step.attrs->i("scores_dtype"));
  p_dtype_ = static_cast<DType>(step.attrs->i("p_dtype"));
  for (size_t i : {0, 1, 2})
    if (!is_8_bit(step.inputs[i].dtype)) return unsupported("operands of no 8 bits");
  if (!is_8_bit(p_dtype_) || !is_8_bit(step.outputs[0]) ||
      (!is_8_bit(scores) && scores != DType::kF32))
    return unsupported("scores, probabilities or a result of this dtype");
  LEPTON_RETURN_IF_ERROR(init_product(step, "product.", step.inputs[0].dtype, step.inputs[1].dtype,
                                      scores, &product_));
  LEPTON_RETURN_IF_ERROR(
      init_product(step, "result.", p_dtype_, step.inputs[2].dtype, step.outputs[0], &result_));
  softmax_ = find_softmax(step.isa);
  return init_inner(step);
}

Status QLinearAttentionOp::init_product(const StepDesc& step, const char* prefix, DType lhs,
                                        DType rhs, DType dst, Product* product) const {
  const Attrs attrs = step.attrs->group(prefix);
  int32_t rhs_zero = 0;
  LEPTON_RETURN_IF_ERROR(read_zero_point(attrs, "a_zero_point", lhs, &product->lhs_zero));
  LEPTON_RETURN_IF_ERROR(read_zero_point(attrs, "b_zero_point", rhs, &rhs_zero));
  LEPTON_RETURN_IF_ERROR(read_clamp(attrs, &product->min, &product->max));
  EpilogueS8Kind kind = EpilogueS8Kind::kF32;
  if (is_8_bit(dst))
    LEPTON_RETURN_IF_ERROR(
        read_requantize(attrs, dst, DType::kUndefined, &kind, &product->requantize));
  product->dst = dst;
  product->rhs_zero = static_cast<uint8_t>(rhs_zero);
  product->rhs_signed = rhs == DType::kS8;
  product->kernel = &best_gemm_s8(step.isa, rhs_zero == (product->rhs_signed ? 0 : 128));
  product->lhs = GemmS8Lhs(*product->kernel, lhs == DType::kS8, step.isa);
  product->epilogue = best_epilogue_s8(kind, step.isa);
  return {};
}

Status QLinearAttentionOp::init_inner(const StepDesc& step) {
  const auto operand = [](DType dtype) {
    TensorInfo info;
    info.dtype = dtype;
    info.present = true;
    return info;
  };
  scores_attrs_ = step.attrs->group("scores.");
  probabilities_attrs_ = step.attrs->group("probabilities.");
  StepDesc inner;
  inner.name = step.name;
  inner.isa = step.isa;
  inner.attrs = &probabilities_attrs_;
  inner.inputs = {operand(DType::kF32)};
  inner.outputs = {p_dtype_};
  inner.op = "lepton.Elementwise";
  LEPTON_RETURN_IF_ERROR(find_op(inner.op)(inner, &probabilities_));
  inner.attrs = &scores_attrs_;
  inner.outputs = {DType::kF32};
  inner.inputs = {operand(product_.dst)};
  if (has_table_) {
    inner.op = "lepton.Lookup";
    inner.inputs.push_back(step.inputs[kTable]);
  } else if (has_mask_) {
    inner.inputs.insert(mask_first_ ? inner.inputs.begin() : inner.inputs.end(),
                        operand(DType::kF32));
  }
  if (!has_table_ && !scores_attrs_.has("program"))
    return product_.dst == DType::kF32 && !has_mask_ ? Status() : invalid_model("no scores");
  return find_op(inner.op)(inner, &scores_);
}

Status QLinearAttentionOp::bind_tile(const BindContext& context, size_t rows,
                                     const AttentionShape& shape, Inner* scores,
                                     Inner* probabilities) const {
  TensorInfo tile;
  tile.present = true;
  tile.shape = {static_cast<int64_t>(rows), static_cast<int64_t>(shape.total)};
  const auto bind_one = [&](const Op& op, std::vector<TensorInfo> inputs, DType out, Inner* inner) {
    JoinedBinder binder(std::move(inputs), {out}, 1);
    LEPTON_RETURN_IF_ERROR(op.bind(binder));
    if (!binder.run || binder.shape(0) != tile.shape) return internal_error("a tile changed shape");
    inner->run = std::move(binder.run);
    inner->scratch = binder.scratch;
    return Status();
  };
  if (scores_ != nullptr) {
    tile.dtype = product_.dst;
    std::vector<TensorInfo> inputs = {tile};
    if (has_table_) {
      inputs.push_back(context.input(static_cast<int>(kTable)));
    } else if (has_mask_) {
      TensorInfo mask = tile;
      mask.dtype = DType::kF32;
      if (shape.mask.row == 0) mask.shape = {static_cast<int64_t>(shape.total)};
      inputs.insert(mask_first_ ? inputs.begin() : inputs.end(), mask);
    }
    LEPTON_RETURN_IF_ERROR(bind_one(*scores_, std::move(inputs), DType::kF32, scores));
  }
  tile.dtype = DType::kF32;
  return bind_one(*probabilities_, {tile}, p_dtype_, probabilities);
}

Status QLinearAttentionOp::bind_inner(const BindContext& context,
                                      BoundQLinearAttention* bound) const {
  const AttentionShape& shape = bound->shape;
  const size_t heights[2] = {std::min(bound->tile_rows, shape.seq_q),
                             shape.seq_q % bound->tile_rows};
  for (size_t i = 0; i < 2; ++i)
    if (heights[i] != 0)
      LEPTON_RETURN_IF_ERROR(
          bind_tile(context, heights[i], shape, &bound->scores[i], &bound->probabilities[i]));
  return {};
}

Status QLinearAttentionOp::plan_scratch(int threads, BoundQLinearAttention* bound) const {
  const AttentionShape& s = bound->shape;
  const size_t mr = static_cast<size_t>(product_.kernel->mr);
  const size_t fitting = kTileBytes / std::max<size_t>(1, s.total * sizeof(float));
  bound->tile_rows = std::max(mr, std::min(fitting, kMostTileRows) / mr * mr);
  const size_t heads = s.batch * s.kv_heads, wanted = threads > 1 ? 2 * size_t(threads) : 1;
  const size_t tiles = ceil_div(s.seq_q, bound->tile_rows);
  const size_t cuts = std::min(tiles, ceil_div(wanted, std::max<size_t>(1, heads)));
  bound->task_rows = ceil_div(tiles, std::max<size_t>(1, cuts)) * bound->tile_rows;
  bound->row_tasks = ceil_div(s.seq_q, bound->task_rows);
  const auto n = static_cast<int64_t>(s.total), depth = static_cast<int64_t>(s.depth);
  LEPTON_RETURN_IF_ERROR(gemm_s8_layout(*product_.kernel, depth, n, &bound->k_layout));
  LEPTON_RETURN_IF_ERROR(
      gemm_s8_layout(*result_.kernel, n, static_cast<int64_t>(s.depth_v), &bound->v_layout));
  bound->k = round_up(bound->k_layout.matrix_bytes, kCacheLine);
  bound->v = round_up(bound->v_layout.matrix_bytes, kCacheLine);
  const size_t rows = bound->tile_rows;
  bound->rows = round_up(
      rows * std::max(product_.lhs.row_bytes(s.depth), result_.lhs.row_bytes(s.total)), kCacheLine);
  bound->x = round_up(rows * s.total * sizeof(float), kCacheLine);
  bound->s = scores_ == nullptr ? 0 : round_up(rows * s.total * size_of(product_.dst), kCacheLine);
  bound->p = round_up(rows * s.total, kCacheLine);
  bound->scale_bytes[0] = round_up(s.total * sizeof(float), kCacheLine);
  bound->scale_bytes[1] = round_up(s.depth_v * sizeof(float), kCacheLine);
  return {};
}

Status QLinearAttentionOp::bind(BindContext& context) const {
  BoundQLinearAttention bound;
  LEPTON_RETURN_IF_ERROR(attention_shape(context, attrs_, &bound.shape));
  const AttentionShape& s = bound.shape;
  LEPTON_RETURN_IF_ERROR(context.set_output(0, s.output));
  for (size_t i : {kProductScale, kResultScale})
    if (context.input(static_cast<int>(i)).shape.elements() != 1)
      return invalid_input("a scale of more than one entry");
  if (has_mask_ && (s.mask_keys != s.total || s.mask_per_row))
    return unsupported("a mask that does not name every key");
  if (s.output.elements() == 0 || s.total == 0 || s.depth == 0) {
    if (s.output.elements() != 0) return invalid_input("attention without keys");
    return nothing_to_run(context);
  }
  LEPTON_RETURN_IF_ERROR(plan_scratch(context.threads(), &bound));
  LEPTON_RETURN_IF_ERROR(bind_inner(context, &bound));
  for (const auto* inner : {&bound.scores, &bound.probabilities})
    for (const Inner& one : *inner)
      bound.inner = std::max(bound.inner, round_up(one.scratch, kCacheLine));
  context.set_scratch(bound.scale_bytes[0] + bound.scale_bytes[1] +
                      bound.thread_bytes() * static_cast<size_t>(context.threads()));
  const auto shared = std::make_shared<const BoundQLinearAttention>(std::move(bound));
  context.set_run([this, shared](const RunArgs& args) {
    run(*shared, args);
    return Status();
  });
  return {};
}

void QLinearAttentionOp::run(const BoundQLinearAttention& bound, const RunArgs& args) const {
  const AttentionShape& s = bound.shape;
  float* const scales[2] = {reinterpret_cast<float*>(args.scratch),
                            reinterpret_cast<float*>(args.scratch + bound.scale_bytes[0])};
  std::fill_n(scales[0], s.total, args.input<float>(kProductScale)[0]);
  std::fill_n(scales[1], s.depth_v, args.input<float>(kResultScale)[0]);
  std::byte* const threads = args.scratch + bound.scale_bytes[0] + bound.scale_bytes[1];
  const size_t tasks = s.batch * s.kv_heads * bound.row_tasks;
  args.parallel.loop(static_cast<int64_t>(tasks), [&](int64_t i, int thread) {
    const size_t index = static_cast<size_t>(i);
    Task task = {bound, args, scales[0], scales[1], 0, 0, 0, 0, {}, {}, {}, {}, {}, {}, {}};
    task.row = index % bound.row_tasks * bound.task_rows;
    task.rows = std::min(bound.task_rows, s.seq_q - task.row);
    task.kv_head = index / bound.row_tasks % s.kv_heads;
    task.batch = index / bound.row_tasks / s.kv_heads;
    task.k = threads + static_cast<size_t>(thread) * bound.thread_bytes();
    task.v = task.k + bound.k;
    task.prepared = task.v + bound.v;
    task.x = task.prepared + bound.rows;
    task.s = task.x + bound.x;
    task.p = task.s + bound.s;
    task.inner = task.p + bound.p;
    run_task(task);
  });
}

void QLinearAttentionOp::pack(const Product& product, const void* from, size_t k, size_t n,
                              size_t row_stride, size_t column_stride, std::byte* packed) {
  PackGemmS8 pack = {};
  pack.k = k;
  pack.n = n;
  pack.b = from;
  pack.b_signed = product.rhs_signed;
  pack.row_stride = row_stride;
  pack.column_stride = column_stride;
  pack.zero_points = &product.rhs_zero;
  pack.packed = packed;
  pack_gemm_s8(*product.kernel, pack, 0, gemm_panels(*product.kernel, n));
}

void QLinearAttentionOp::run_task(const Task& task) const {
  const AttentionShape& s = task.bound.shape;
  const uint8_t* const k =
      task.args.input<uint8_t>(1) + task.batch * s.k.batch + task.kv_head * s.k.head;
  const uint8_t* const v =
      task.args.input<uint8_t>(2) + task.batch * s.v.batch + task.kv_head * s.v.head;
  pack(product_, k, s.depth, s.total, 1, s.k.row, task.k);
  pack(result_, v, s.total, s.depth_v, s.v.row, 1, task.v);
  for (size_t g = 0; g < s.group; ++g)
    for (size_t row = 0; row < task.rows; row += task.bound.tile_rows)
      run_tile(task, task.kv_head * s.group + g, task.row + row,
               std::min(task.bound.tile_rows, task.rows - row));
}

void QLinearAttentionOp::multiply(const Product& product, size_t k, size_t n,
                                  const std::byte* packed, size_t panel_stride, const float* scale,
                                  const void* lhs, size_t lhs_stride, size_t rows,
                                  std::byte* prepared, void* dst, size_t dst_stride) const {
  const size_t stride = product.lhs.row_stride(k);
  product.lhs.prepare(rows, k, stride, lhs, lhs_stride, product.lhs_zero, prepared, stride);
  GemmS8Plan plan = {};
  plan.kernel = product.kernel;
  plan.epilogue = product.epilogue;
  plan.k = k;
  plan.n = n;
  plan.packed = packed;
  plan.panel_stride = panel_stride;
  plan.scale = scale;
  plan.requantize = product.requantize;
  plan.zero_point = product.lhs.zero_point_left(product.lhs_zero);
  plan.min = product.min;
  plan.max = product.max;
  plan.dst_size = size_of(product.dst);
  GemmS8Block block = {};
  block.m = rows;
  block.rows = prepared;
  block.row_stride = stride;
  block.last = gemm_panels(*product.kernel, n);
  block.dst = dst;
  block.dst_stride = dst_stride;
  gemm_s8_block(plan, block);
}

void QLinearAttentionOp::run_tile(const Task& task, size_t head, size_t row, size_t rows) const {
  const BoundQLinearAttention& bound = task.bound;
  const AttentionShape& s = bound.shape;
  const bool last = rows != bound.tile_rows && s.seq_q > bound.tile_rows;
  const auto at = [&](const HeadStrides& strides) {
    return task.batch * strides.batch + head * strides.head + row * strides.row;
  };
  std::byte* const scores = scores_ == nullptr ? task.x : task.s;
  multiply(product_, s.depth, s.total, task.k, bound.k_layout.panel_stride, task.product_scale,
           task.args.input<uint8_t>(0) + at(s.q), s.q.row, rows, task.prepared, scores, s.total);
  float* const x = reinterpret_cast<float*>(task.x);
  if (scores_ != nullptr) {
    const void* in[2] = {scores, has_table_ ? task.args.in[kTable] : nullptr};
    if (has_mask_) {
      in[mask_first_ ? 1 : 0] = scores;
      in[mask_first_ ? 0 : 1] = task.args.input<float>(kMask) + at(s.mask);
    }
    void* out[1] = {x};
    (void)bound.scores[last ? 1 : 0].run(RunArgs{in, out, task.inner, Parallel()});
  }
  for (size_t i = 0; i < rows; ++i) softmax_.row(x + i * s.total, x + i * s.total, s.total, false);
  const void* in[1] = {x};
  void* out[1] = {task.p};
  (void)bound.probabilities[last ? 1 : 0].run(RunArgs{in, out, task.inner, Parallel()});
  multiply(result_, s.total, s.depth_v, task.v, bound.v_layout.panel_stride, task.result_scale,
           task.p, s.total, rows, task.prepared, task.args.output<uint8_t>(0) + at(s.y), s.y.row);
}

}  // namespace

Status make_qlinear_attention(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<QLinearAttentionOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
