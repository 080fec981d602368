// "lepton.DynamicQuantizeAttention": Attention over float32 operands that are rounded to 8 bits as
// they come, with exact integer products. Operands, attributes and layouts are those of attention.h
// (no state, no window, no softcap, one output). For each head:
//
//   Q, K   every row over its own range, V every column over its own (attention_s8_kernels.h)
//   S      the products of the integers, exact
//   P      exponentials of scores less the row's largest, rounded to 8 bits, not divided yet
//   Y      (P · V, exact) · (scale of V's column) / (sum of the row's P)
//
// So probabilities keep 8 bits whatever their largest is, and no number depends on the instruction
// set or on how the work was cut. A query or key that is not finite makes NaN of its row or of its
// head, a value of its column. Where queries are few (kFewRows) all is float32, as Attention: there
// rounding keys and values would cost more than both products.
//
// Where one mask serves all heads, keys beyond the last one that it shows to a row (true, or more
// than kHidden; all of them where it shows none) are not looked at for that row.
//
// One task is one head of keys and values: both are rounded and packed once, then tiles of query
// rows take their scores against all keys, which stay in cache until the second product has read
// what the softmax made of them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "ops/attention.h"
#include "ops/attention_s8_kernels.h"
#include "ops/gemm_driver.h"
#include "ops/movement.h"

namespace lepton {
namespace {

struct AttentionS8Info {
  std::string_view name;
  Isa isa;
  AttentionS8Kernels (*run)();
};
const AttentionS8Info kInfo[] = {
#define LEPTON_ATTENTION_S8(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/attention_s8_kernels.inc"
#undef LEPTON_ATTENTION_S8
};
constexpr KernelList<AttentionS8Info> kList = {kInfo, sizeof kInfo / sizeof kInfo[0]};

constexpr size_t kFewRows = 8;
constexpr size_t kMostTileRows = 24;
constexpr size_t kTileBytes = 256 * 1024;  // scores of one tile
constexpr size_t kPiece = 64;              // columns whose rows are packed together, at most
constexpr float kLog2E = 1.44269504f;
constexpr float kHidden = -1e30f;    // what is added to scores of keys that nobody shall see
constexpr size_t kMaskGrain = 4096;  // values of a mask that are worth a chunk

// Bytes of one thread's scratch, by part, in this order.
struct ScratchPlan {
  size_t keys = 0, values = 0, key_scale = 0, correction = 0, value_scale = 0;
  size_t rows = 0, row = 0, scores = 0, p = 0;
  size_t bytes() const {
    return keys + values + key_scale + correction + value_scale + rows + row + scores + p;
  }
};

struct BoundDynamicAttention {
  AttentionShape shape;
  GemmS8Layout k_layout, v_layout;
  size_t tile_rows = 0, task_rows = 0, row_tasks = 0;
  size_t depth = 0, total = 0;  // padded as the kernel asks
  size_t p_stride = 0;          // elements
  size_t mask_rows = 0;         // of all batches, where one mask serves all heads
  size_t visible_offset = 0;    // scratch: the number of keys that each of them shows
  ScratchPlan scratch;
};

class DynamicQuantizeAttentionOp final : public Op {
 public:
  Status init(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  struct Task;
  Status plan(int threads, BoundDynamicAttention* bound) const;
  void run(const BoundDynamicAttention& bound, const RunArgs& args) const;
  void find_visible(const BoundDynamicAttention& bound, const RunArgs& args) const;
  template <typename T>
  void find_visible_in(const BoundDynamicAttention& bound, const RunArgs& args, T hidden) const;
  void run_task(Task& task) const;
  void pack_keys(Task& task) const;
  void pack_values(const Task& task) const;
  void quantize(const Task& task, int input, const HeadStrides& strides, size_t head, size_t row,
                size_t rows, float* scale, int32_t* sum) const;
  void run_tile(const Task& task, size_t head, size_t row, size_t rows) const;
  void multiply_scores(const Task& task, size_t rows, size_t keys) const;
  size_t find_keys(const Task& task, size_t row, size_t rows) const;
  void softmax(const Task& task, size_t head, size_t row, size_t rows, size_t keys) const;
  void multiply_values(const Task& task, size_t head, size_t row, size_t rows, size_t keys) const;
  size_t element() const { return gemm_element(*gemm_); }
  bool reads_u8() const { return lepton::reads_u8(gemm_->form); }

  AttentionAttrs attrs_;
  std::unique_ptr<Op> few_;
  DType mask_ = DType::kUndefined;
  bool has_scale_ = false;
  float scale_ = 0.f;
  const GemmS8KernelInfo* gemm_ = nullptr;
  EpilogueS8Kernel epilogue_ = nullptr;
  AttentionKernels movers_ = {};
  AttentionS8Kernels kernels_ = {};
};

// What the tiles of one head share, in this thread's scratch.
struct DynamicQuantizeAttentionOp::Task {
  Task(const BoundDynamicAttention& bound_to, const RunArgs& run_args)
      : bound(bound_to), args(run_args) {}
  const BoundDynamicAttention& bound;
  const RunArgs& args;
  size_t batch = 0, kv_head = 0, row = 0, rows = 0;
  std::byte *keys = nullptr, *values = nullptr, *lhs = nullptr, *p = nullptr;
  float *key_scale = nullptr, *value_scale = nullptr, *row_scale = nullptr, *row_max = nullptr;
  int32_t *correction = nullptr, *scores = nullptr, *row_sum = nullptr, *row_keys = nullptr;
  float finite = 0.f;  // 0, or NaN where a key is not finite

  const float* at(int input, const HeadStrides& s, size_t head, size_t i) const {
    return args.input<float>(input) + batch * s.batch + head * s.head + i * s.row;
  }
};

Status DynamicQuantizeAttentionOp::init(const StepDesc& step) {
  LEPTON_RETURN_IF_ERROR(check_operands(step, 3, 4));
  LEPTON_RETURN_IF_ERROR(make_attention(step, &few_));
  LEPTON_RETURN_IF_ERROR(read_attention_attrs(step, &attrs_));
  if (step.outputs.size() != 1) return unsupported("more than one output");
  if (attrs_.left >= 0 || attrs_.right >= 0 || step.attrs->f("softcap") != 0)
    return unsupported("a window or softcap");
  if (step.has_input(3)) mask_ = step.inputs[3].dtype;
  has_scale_ = step.attrs->has("scale");
  scale_ = step.attrs->f("scale");
  gemm_ = &best_gemm_s8(step.isa, true);
  epilogue_ = best_epilogue_s8(EpilogueS8Kind::kF32, step.isa);
  movers_ = find_attention_kernels(step.isa);
  kernels_ = kList.best(step.isa)->run();
  return {};
}

Status DynamicQuantizeAttentionOp::plan(int threads, BoundDynamicAttention* bound) const {
  const AttentionShape& s = bound->shape;
  const size_t mr = static_cast<size_t>(gemm_->mr), nr = static_cast<size_t>(gemm_->nr);
  const size_t fitting = kTileBytes / (s.total * sizeof(int32_t)) / mr * mr;
  bound->tile_rows = std::max(mr, std::min(fitting, std::max(mr, kMostTileRows / mr * mr)));
  const size_t heads = s.batch * s.kv_heads;
  const size_t wanted = threads > 1 ? 2 * static_cast<size_t>(threads) : 1;
  const size_t tiles = ceil_div(s.seq_q, bound->tile_rows);
  const size_t cuts = std::min(tiles, ceil_div(wanted, heads));
  bound->task_rows = ceil_div(tiles, cuts) * bound->tile_rows;
  bound->row_tasks = ceil_div(s.seq_q, bound->task_rows);
  const auto total = static_cast<int64_t>(s.total);
  LEPTON_RETURN_IF_ERROR(
      gemm_s8_layout(*gemm_, static_cast<int64_t>(s.depth), total, &bound->k_layout));
  LEPTON_RETURN_IF_ERROR(
      gemm_s8_layout(*gemm_, total, static_cast<int64_t>(s.depth_v), &bound->v_layout));
  bound->depth = gemm_k_padded(*gemm_, s.depth);
  bound->total = gemm_k_padded(*gemm_, s.total);
  // No power of two: the rows of a tile would share cache sets.
  bound->p_stride = round_up(s.total, kCacheLine) + kCacheLine;
  const auto lines = [](size_t count, size_t size) { return round_up(count * size, kCacheLine); };
  const size_t rows = bound->tile_rows;
  ScratchPlan& scratch = bound->scratch;
  scratch.keys = lines(bound->k_layout.matrix_bytes, 1);
  scratch.values = lines(bound->v_layout.matrix_bytes, 1);
  scratch.key_scale = scratch.correction = lines(s.total, sizeof(float));
  scratch.value_scale = lines(s.depth_v, sizeof(float));
  scratch.rows = lines(std::max(rows, kPiece) * bound->depth, element());
  scratch.row = lines(4 * rows, sizeof(float));
  scratch.scores = lines(rows * round_up(s.total, nr), sizeof(int32_t));
  scratch.p = lines(rows * bound->p_stride, element());
  return {};
}

Status DynamicQuantizeAttentionOp::bind(BindContext& context) const {
  BoundDynamicAttention bound;
  LEPTON_RETURN_IF_ERROR(attention_shape(context, attrs_, &bound.shape));
  const AttentionShape& s = bound.shape;
  const bool few = s.seq_q * s.group <= kFewRows || s.total == 0 || s.depth == 0;
  if (few || s.output.elements() == 0 || s.mask_per_row) return few_->bind(context);
  LEPTON_RETURN_IF_ERROR(context.set_output(0, s.output));
  LEPTON_RETURN_IF_ERROR(plan(context.threads(), &bound));
  bound.visible_offset = bound.scratch.bytes() * static_cast<size_t>(context.threads());
  if (mask_ != DType::kUndefined && s.mask.head == 0)
    bound.mask_rows = (s.mask.batch == 0 ? 1 : s.batch) * (s.mask.row == 0 ? 1 : s.seq_q);
  context.set_scratch(bound.visible_offset + bound.mask_rows * sizeof(int32_t));
  const auto shared = std::make_shared<const BoundDynamicAttention>(bound);
  context.set_run([this, shared](const RunArgs& args) {
    run(*shared, args);
    return Status();
  });
  return {};
}

void DynamicQuantizeAttentionOp::run(const BoundDynamicAttention& bound,
                                     const RunArgs& args) const {
  const AttentionShape& s = bound.shape;
  const ScratchPlan& plan = bound.scratch;
  const size_t tasks = s.batch * s.kv_heads * bound.row_tasks;
  find_visible(bound, args);
  args.parallel.loop(static_cast<int64_t>(tasks), [&](int64_t i, int thread) {
    const size_t index = static_cast<size_t>(i);
    std::byte* at = args.scratch + static_cast<size_t>(thread) * plan.bytes();
    const auto take = [&at](size_t bytes) {
      std::byte* const part = at;
      at += bytes;
      return part;
    };
    Task task(bound, args);
    task.row = index % bound.row_tasks * bound.task_rows;
    task.rows = std::min(bound.task_rows, s.seq_q - task.row);
    task.kv_head = index / bound.row_tasks % s.kv_heads;
    task.batch = index / bound.row_tasks / s.kv_heads;
    task.keys = take(plan.keys);
    task.values = take(plan.values);
    task.key_scale = reinterpret_cast<float*>(take(plan.key_scale));
    task.correction = reinterpret_cast<int32_t*>(take(plan.correction));
    task.value_scale = reinterpret_cast<float*>(take(plan.value_scale));
    task.lhs = take(plan.rows);
    task.row_scale = reinterpret_cast<float*>(take(plan.row));
    task.row_max = task.row_scale + bound.tile_rows;
    task.row_sum = reinterpret_cast<int32_t*>(task.row_max + bound.tile_rows);
    task.row_keys = task.row_sum + bound.tile_rows;
    task.scores = reinterpret_cast<int32_t*>(take(plan.scores));
    task.p = take(plan.p);
    run_task(task);
  });
}

void DynamicQuantizeAttentionOp::find_visible(const BoundDynamicAttention& bound,
                                              const RunArgs& args) const {
  if (bound.mask_rows != 0 && mask_ == DType::kBool) find_visible_in<uint8_t>(bound, args, 0);
  if (bound.mask_rows != 0 && mask_ == DType::kF32) find_visible_in<float>(bound, args, kHidden);
}

template <typename T>
void DynamicQuantizeAttentionOp::find_visible_in(const BoundDynamicAttention& bound,
                                                 const RunArgs& args, T hidden) const {
  const AttentionShape& s = bound.shape;
  const size_t rows = s.mask.row == 0 ? 1 : s.seq_q, count = s.mask_keys;
  int32_t* const visible = reinterpret_cast<int32_t*>(args.scratch + bound.visible_offset);
  parallel_ranges(args.parallel, static_cast<int64_t>(bound.mask_rows),
                  static_cast<int64_t>(kMaskGrain / std::max<size_t>(count, 1)),
                  [&](int64_t begin, int64_t end) {
                    for (size_t i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
                      const T* const mask =
                          args.input<T>(3) + i / rows * s.mask.batch + i % rows * s.mask.row;
                      size_t last = count;
                      while (last > 0 && !(mask[last - 1] > hidden)) --last;
                      visible[i] = static_cast<int32_t>(last == 0 ? count : last);
                    }
                  });
}

// The keys of each row of a tile; returns the most of them.
size_t DynamicQuantizeAttentionOp::find_keys(const Task& task, size_t row, size_t rows) const {
  const AttentionShape& s = task.bound.shape;
  const auto* const visible =
      reinterpret_cast<const int32_t*>(task.args.scratch + task.bound.visible_offset);
  size_t most = 0;
  for (size_t i = 0; i < rows; ++i) {
    size_t keys = attention_keys(attrs_, s, nullptr, task.batch, row + i).last;
    if (task.bound.mask_rows != 0) {
      const size_t batch_rows = s.mask.row == 0 ? 1 : s.seq_q;
      const size_t at =
          (s.mask.batch == 0 ? 0 : task.batch * batch_rows) + (s.mask.row == 0 ? 0 : row + i);
      keys = std::min(keys, static_cast<size_t>(visible[at]));
    }
    task.row_keys[i] = static_cast<int32_t>(keys);
    most = std::max(most, keys);
  }
  return most;
}

void DynamicQuantizeAttentionOp::run_task(Task& task) const {
  const AttentionShape& s = task.bound.shape;
  pack_keys(task);
  pack_values(task);
  for (size_t g = 0; g < s.group; ++g)
    for (size_t row = 0; row < task.rows; row += task.bound.tile_rows)
      run_tile(task, task.kv_head * s.group + g, task.row + row,
               std::min(task.bound.tile_rows, task.rows - row));
}

// Rows of queries (sum is null; 128 more for bytes, since the kernel's lhs is unsigned) or of keys.
void DynamicQuantizeAttentionOp::quantize(const Task& task, int input, const HeadStrides& strides,
                                          size_t head, size_t row, size_t rows, float* scale,
                                          int32_t* sum) const {
  const size_t depth = task.bound.shape.depth, padded = task.bound.depth;
  const float* const x = task.at(input, strides, head, row);
  if (reads_u8()) {
    kernels_.quantize_rows_s8(x, strides.row, rows, depth, padded, sum == nullptr ? 128 : 0,
                              reinterpret_cast<uint8_t*>(task.lhs), scale, sum);
  } else {
    kernels_.quantize_rows_i16(x, strides.row, rows, depth, padded,
                               reinterpret_cast<int16_t*>(task.lhs), scale);
  }
}

// Rows of keys are transposed in units of 32 bits, kr elements of either form.
void DynamicQuantizeAttentionOp::pack_keys(Task& task) const {
  const BoundDynamicAttention& bound = task.bound;
  const AttentionShape& s = bound.shape;
  const size_t units = bound.depth * element() / sizeof(float);
  for (size_t p = 0; p < gemm_panels(*gemm_, s.total); ++p) {
    const GemmS8Panel panel =
        gemm_s8_panel(*gemm_, s.total, task.keys, bound.k_layout.panel_stride, p);
    quantize(task, 1, s.k, task.kv_head, panel.column, panel.columns, task.key_scale + panel.column,
             task.correction + panel.column);
    movers_.pack_keys(reinterpret_cast<const float*>(task.lhs), units, panel.columns, units,
                      panel.width,
                      const_cast<float*>(reinterpret_cast<const float*>(panel.values)));
  }
  for (size_t j = 0; j < s.total; ++j) task.finite += task.key_scale[j] * 0.f;
  for (size_t j = 0; reads_u8() && j < s.total; ++j) task.correction[j] *= 128;
}

void DynamicQuantizeAttentionOp::pack_values(const Task& task) const {
  const BoundDynamicAttention& bound = task.bound;
  const AttentionShape& s = bound.shape;
  for (size_t p = 0; p < gemm_panels(*gemm_, s.depth_v); ++p) {
    const GemmS8Panel panel =
        gemm_s8_panel(*gemm_, s.depth_v, task.values, bound.v_layout.panel_stride, p);
    std::byte* const packed = const_cast<std::byte*>(panel.values);
    const float* const from = task.at(2, s.v, task.kv_head, 0) + panel.column;
    float* const scale = task.value_scale + panel.column;
    if (reads_u8()) {
      kernels_.pack_values_s8(from, s.v.row, s.total, panel.columns, panel.width,
                              reinterpret_cast<int8_t*>(packed), scale);
    } else {
      kernels_.pack_values_i16(from, s.v.row, s.total, panel.columns, panel.width,
                               reinterpret_cast<int16_t*>(packed), scale);
    }
  }
}

void DynamicQuantizeAttentionOp::run_tile(const Task& task, size_t head, size_t row,
                                          size_t rows) const {
  const BoundDynamicAttention& bound = task.bound;
  const size_t keys = find_keys(task, row, rows);
  quantize(task, 0, bound.shape.q, head, row, rows, task.row_scale, nullptr);
  multiply_scores(task, rows, keys);
  softmax(task, head, row, rows, keys);
  multiply_values(task, head, row, rows, keys);
}

void DynamicQuantizeAttentionOp::multiply_scores(const Task& task, size_t rows, size_t keys) const {
  const BoundDynamicAttention& bound = task.bound;
  const size_t mr = static_cast<size_t>(gemm_->mr), nr = static_cast<size_t>(gemm_->nr);
  GemmS8Params product = {};
  product.k = bound.depth;
  product.lhs_stride = bound.depth;
  const TileScope tiles(*gemm_);
  for (size_t p = 0; p < ceil_div(keys, nr); ++p) {
    const GemmS8Panel panel =
        gemm_s8_panel(*gemm_, bound.shape.total, task.keys, bound.k_layout.panel_stride, p);
    product.n = panel.width;
    product.rhs = panel.values;
    for (size_t i = 0; i < rows; i += mr) {
      product.m = std::min(mr, rows - i);
      product.lhs = task.lhs + i * bound.depth * element();
      product.dst = task.scores + p * bound.tile_rows * nr + i * panel.width;
      gemm_->run(product);
    }
  }
}

void DynamicQuantizeAttentionOp::softmax(const Task& task, size_t head, size_t row, size_t rows,
                                         size_t keys) const {
  const BoundDynamicAttention& bound = task.bound;
  const AttentionShape& s = bound.shape;
  const size_t nr = static_cast<size_t>(gemm_->nr), rest = s.total % nr;
  const float scale = has_scale_ ? scale_ : 1.f / std::sqrt(static_cast<float>(s.depth));
  AttentionS8Row one = {};
  one.n = s.total;
  one.n_padded = gemm_k_padded(*gemm_, keys);
  one.scores = task.scores;
  one.width = nr;
  one.last_width = rest == 0 ? nr : round_up(rest, static_cast<size_t>(gemm_->nv));
  one.panel_stride = bound.tile_rows * nr;
  one.correction = reads_u8() ? task.correction : nullptr;
  one.key_scale = task.key_scale;
  const auto turn_to = [&](size_t i) {
    one.row = i;
    one.last = static_cast<size_t>(task.row_keys[i]);
    one.scale = task.row_scale[i] * scale * kLog2E;
    const size_t at = task.batch * s.mask.batch + head * s.mask.head + (row + i) * s.mask.row;
    if (mask_ == DType::kBool) one.mask = task.args.input<uint8_t>(3) + at;
    if (mask_ == DType::kF32) one.bias = task.args.input<float>(3) + at;
    one.p = task.p + i * bound.p_stride * element();
  };
  const auto exponentials =
      reads_u8() ? kernels_.exponentials_row_u8 : kernels_.exponentials_row_i16;
  for (size_t i = 0; i < rows; ++i) {
    turn_to(i);
    task.row_max[i] = kernels_.scores_row(one);
  }
  for (size_t i = 0; i < rows; ++i) {
    turn_to(i);
    task.row_sum[i] = exponentials(one, task.row_max[i]);
  }
  for (size_t i = 0; i < rows; ++i) {
    const float sum = static_cast<float>(task.row_sum[i]);
    const float inverse = task.row_sum[i] == 0 ? 0.f : 1.f / sum;
    task.row_scale[i] = inverse + (task.finite + task.row_scale[i] * 0.f);
  }
}

void DynamicQuantizeAttentionOp::multiply_values(const Task& task, size_t head, size_t row,
                                                 size_t rows, size_t keys) const {
  const BoundDynamicAttention& bound = task.bound;
  const AttentionShape& s = bound.shape;
  GemmS8Plan plan = {};
  plan.kernel = gemm_;
  plan.epilogue = epilogue_;
  plan.k = keys;
  plan.n = s.depth_v;
  plan.packed = task.values;
  plan.panel_stride = bound.v_layout.panel_stride;
  plan.scale = task.value_scale;
  plan.min = -std::numeric_limits<float>::infinity();
  plan.max = std::numeric_limits<float>::infinity();
  plan.dst_size = sizeof(float);
  GemmS8Block block = {};
  block.m = rows;
  block.rows = task.p;
  block.row_stride = bound.p_stride;
  block.row_scale = task.row_scale;
  block.last = gemm_panels(*gemm_, s.depth_v);
  block.dst = task.args.output<float>(0) + task.batch * s.y.batch + head * s.y.head + row * s.y.row;
  block.dst_stride = s.y.row;
  gemm_s8_block(plan, block);
}

}  // namespace

Status make_dynamic_quantize_attention(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<DynamicQuantizeAttentionOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
