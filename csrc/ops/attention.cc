// The driver of attention: tiles of query rows against blocks of keys with an online softmax.
//
// One task is one key/value head of one batch with a range of queries, for all query heads that
// share it. It walks the keys in blocks; a block is packed once into this thread's scratch, and
// every tile of rows takes scores (matrix product), one step of the softmax, and values (matrix
// product onto its accumulators, scaled first by what the new maximum asks). So memory is read
// once a task, and scratch does not grow with the number of keys. Few rows (token by token) skip
// packing: there reading the keys and values is all the time. Results depend neither on how
// queries were cut into tasks nor on the thread count. FlashAttention: Dao et al., arXiv
// 2205.14135 and 2307.08691.
#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "ops/attention_scores.h"
#include "ops/gemm.h"
#include "ops/kernel_list.h"
#include "ops/movement.h"

namespace lepton {
namespace {

struct AttentionInfo {
  std::string_view name;
  Isa isa;
  AttentionKernels (*run)();
};
const AttentionInfo kInfo[] = {
#define LEPTON_ATTENTION(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/attention_kernels.inc"
#undef LEPTON_ATTENTION
};
constexpr KernelList<AttentionInfo> kList = {kInfo, sizeof kInfo / sizeof kInfo[0]};

// Keys of one block at most: their packed keys and values stay in L2 with a tile's scores. Every
// row pays for the ends of a block (its maximum, its sum, the scaling of what went before).
constexpr size_t kBlockKeys = 512, kLargeBlockKeys = 1024;
// Rows of one tile, in whole register tiles; and the rows up to which packing does not pay.
constexpr size_t kTileRows = 24;
constexpr size_t kFewRows = 8;
// Accumulators of one task. They may leave L2: a tile's pass by once a block, while keys and values
// are packed anew for every task.
constexpr size_t kTaskBytes = 768 * 1024;
constexpr size_t kTasksPerThread = 4;

// Floats of one thread's scratch, by part.
struct ScratchPlan {
  size_t keys = 0, values = 0, scores = 0, p = 0, stats = 0, y = 0;
  size_t bytes() const {
    return thread_share((keys + values + scores + p + stats + y) * sizeof(float));
  }
};
struct Scratch {
  float *keys, *values, *scores, *p, *max, *sum, *y;
};

struct BoundAttention {
  AttentionShape shape;
  bool few_rows = false;
  size_t block_keys = 0, p_stride = 0;  // p_stride: no power of two, rows would share cache sets
  size_t task_rows = 0, row_tasks = 0;  // queries of a task, tasks of a head
  size_t tile_rows = 0, y_tile = 0;     // floats of one tile's accumulators
  size_t present_offset[2] = {0, 0};    // scratch of joined keys and values without an output
  size_t threads_offset = 0;
  ScratchPlan scratch;
};

class AttentionOp final : public Op {
 public:
  Status init(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  struct Task;
  void plan_tasks(int threads, BoundAttention* bound) const;
  size_t plan_present(BoundAttention* bound) const;
  void run(const BoundAttention& bound, const RunArgs& args) const;
  const float* join(const BoundAttention& bound, const RunArgs& args, int which,
                    HeadStrides* strides) const;
  void run_task(const Task& task, size_t index, Scratch scratch) const;
  void tiles(const Task& task, size_t key, size_t n, Scratch& scratch) const;
  void tile(const Task& task, size_t head, size_t row, size_t rows, size_t key, size_t n,
            const Scratch& scratch, size_t slot) const;
  void single_rows(const Task& task, size_t key, size_t n, Scratch& scratch) const;
  float softmax(const Task& task, size_t head, size_t row, size_t key, AttentionRow& block) const;
  KeyRange keys_of(const Task& task, size_t head, size_t row) const;
  void finish(const Task& task, const Scratch& scratch) const;
  bool has_output(size_t i) const { return i < outputs_.size() && outputs_[i]; }

  AttentionAttrs attrs_;
  bool has_scale_ = false, has_past_ = false, has_nonpad_ = false;
  DType mask_ = DType::kUndefined;
  float scale_ = 0.f, softcap_ = 0.f;
  int64_t scores_mode_ = 0;
  std::vector<bool> outputs_;
  size_t block_keys_ = kBlockKeys;
  AttentionKernels kernels_ = {};
  const GemmF32KernelInfo* gemm_ = nullptr;
};

// What the rows of one task share.
struct AttentionOp::Task {
  const BoundAttention& bound;
  const RunArgs& args;
  const float *k, *v;
  HeadStrides k_strides, v_strides;
  const int64_t* nonpad;
  float scale;
  size_t batch = 0, kv_head = 0, row = 0, rows = 0;

  const float* q(size_t head, size_t at) const {
    const HeadStrides& s = bound.shape.q;
    return args.input<float>(0) + batch * s.batch + head * s.head + at * s.row;
  }
  float* y(size_t head, size_t at) const {
    const HeadStrides& s = bound.shape.y;
    return args.output<float>(0) + batch * s.batch + head * s.head + at * s.row;
  }
  const float* key(size_t at) const {
    return k + batch * k_strides.batch + kv_head * k_strides.head + at * k_strides.row;
  }
  const float* value(size_t at) const {
    return v + batch * v_strides.batch + kv_head * v_strides.head + at * v_strides.row;
  }
  size_t mask_offset(size_t head, size_t at) const {
    const HeadStrides& s = bound.shape.mask;
    return batch * s.batch + head * s.head + at * s.row;
  }
};

Status AttentionOp::init(const StepDesc& step) {
  LEPTON_RETURN_IF_ERROR(check_operands(step, 3, 7));
  LEPTON_RETURN_IF_ERROR(read_attention_attrs(step, &attrs_));
  for (size_t i : {0, 1, 2, 4, 5})
    if (step.has_input(i) && step.inputs[i].dtype != DType::kF32)
      return unsupported("operands of " + std::string(name_of(step.inputs[i].dtype)));
  for (DType t : step.outputs)
    if (t != DType::kF32 && t != DType::kUndefined) return unsupported("dtype of an output");
  if (step.outputs.size() > 4) return invalid_model("more than four outputs");
  for (DType t : step.outputs) outputs_.push_back(t != DType::kUndefined);
  has_past_ = step.has_input(4);
  if (has_past_ != step.has_input(5)) return invalid_model("past_key without past_value");
  if (step.has_input(3)) mask_ = step.inputs[3].dtype;
  if (mask_ != DType::kUndefined && mask_ != DType::kBool && mask_ != DType::kF32)
    return unsupported("mask of " + std::string(name_of(mask_)));
  if (step.has_input(6) && step.inputs[6].dtype != DType::kS64)
    return invalid_model("nonpad_kv_seqlen is not int64");
  const int64_t precision = step.attrs->i("softmax_precision", 1);
  if (precision != 1 && precision != 10 && precision != 16)
    return unsupported("softmax in a wider type");
  has_nonpad_ = step.has_input(6);
  has_scale_ = step.attrs->has("scale");
  scale_ = step.attrs->f("scale");
  softcap_ = step.attrs->f("softcap");
  scores_mode_ = step.attrs->i("qk_matmul_output_mode");
  if (scores_mode_ < 0 || scores_mode_ > 3) return invalid_model("qk_matmul_output_mode");
  kernels_ = find_attention_kernels(step.isa);
  // Processors with AVX-512 have 1 MB of L2 or more.
  if (is_within(Isa::k_avx512, step.isa)) block_keys_ = kLargeBlockKeys;
  gemm_ = gemm_f32_kernels().best(step.isa);
  if (gemm_->nr % 8 != 0) return unsupported("panels of no whole vectors");
  return {};
}

void AttentionOp::plan_tasks(int threads, BoundAttention* bound) const {
  const AttentionShape& s = bound->shape;
  const size_t nr = static_cast<size_t>(gemm_->nr), mr = static_cast<size_t>(gemm_->mr);
  bound->few_rows = s.seq_q * s.group <= kFewRows;
  ScratchPlan& scratch = bound->scratch;
  bound->block_keys = std::min(block_keys_, round_up(std::max<size_t>(s.total, 1), nr));
  const size_t keys = round_up(bound->block_keys, nr);
  bound->p_stride = keys + kCacheLine / sizeof(float);
  if (bound->few_rows) {
    bound->tile_rows = 1;
    bound->y_tile = s.depth_v;
    bound->task_rows = s.seq_q;
  } else {
    bound->tile_rows = mr >= kTileRows ? mr : kTileRows / mr * mr;
    bound->y_tile = bound->tile_rows * round_up(s.depth_v, nr);
    const size_t wanted = kTasksPerThread * static_cast<size_t>(threads > 1 ? threads : 0);
    const size_t heads = s.batch * s.kv_heads;
    const size_t cuts = wanted > heads ? ceil_div(wanted, heads) : 1;
    const size_t fitting =
        std::max<size_t>(1, kTaskBytes / std::max<size_t>(1, bound->y_tile * 4 * s.group));
    const size_t tiles = std::min(fitting, ceil_div(ceil_div(s.seq_q, cuts), bound->tile_rows));
    bound->task_rows = tiles * bound->tile_rows;
    scratch.keys = keys * s.depth;
    scratch.values = keys * round_up(s.depth_v, nr);
  }
  bound->row_tasks = ceil_div(s.seq_q, bound->task_rows);
  const size_t tiles = s.group * ceil_div(bound->task_rows, bound->tile_rows);
  scratch.scores = bound->tile_rows * keys;
  scratch.p = bound->tile_rows * bound->p_stride;
  scratch.stats = round_up(2 * tiles * bound->tile_rows, 16);
  scratch.y = tiles * bound->y_tile;
}

// Where past and new keys are joined when no output holds them; returns the bytes.
size_t AttentionOp::plan_present(BoundAttention* bound) const {
  size_t bytes = 0;
  const Shape* const shapes[2] = {&bound->shape.present_key, &bound->shape.present_value};
  for (int i = 0; i < 2; ++i) {
    bound->present_offset[i] = bytes;
    if (has_past_ && !has_output(static_cast<size_t>(i) + 1))
      bytes += round_up(static_cast<size_t>(shapes[i]->elements()) * sizeof(float), kCacheLine);
  }
  return bytes;
}

Status AttentionOp::bind(BindContext& context) const {
  BoundAttention bound;
  AttentionShape& shape = bound.shape;
  LEPTON_RETURN_IF_ERROR(attention_shape(context, attrs_, &shape));
  LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.output));
  const Shape* const others[3] = {&shape.present_key, &shape.present_value, &shape.scores};
  for (size_t i = 1; i < outputs_.size(); ++i)
    if (outputs_[i])
      LEPTON_RETURN_IF_ERROR(context.set_output(static_cast<int>(i), *others[i - 1]));
  if (shape.output.elements() != 0) {
    plan_tasks(context.threads(), &bound);
    bound.threads_offset = plan_present(&bound);
    context.set_scratch(bound.threads_offset +
                        bound.scratch.bytes() * static_cast<size_t>(context.threads()));
  }
  context.set_run([this, bound](const RunArgs& args) {
    run(bound, args);
    return Status();
  });
  return {};
}

// Keys (which = 0) or values (1): the operand itself, or past and new ones joined.
const float* AttentionOp::join(const BoundAttention& bound, const RunArgs& args, int which,
                               HeadStrides* strides) const {
  const AttentionShape& s = bound.shape;
  const float* const now = args.input<float>(1 + which);
  const HeadStrides from = which == 0 ? s.k : s.v;
  const size_t depth = which == 0 ? s.depth : s.depth_v;
  *strides = from;
  const size_t output = static_cast<size_t>(which) + 1;
  if (!has_past_ && !has_output(output)) return now;
  const float* const past = has_past_ ? args.input<float>(4 + which) : nullptr;
  float* const joined = has_output(output)
                            ? args.output<float>(static_cast<int>(output))
                            : reinterpret_cast<float*>(args.scratch + bound.present_offset[which]);
  const HeadStrides to = {s.kv_heads * s.total * depth, s.total * depth, depth};
  args.parallel.loop(static_cast<int64_t>(s.batch * s.kv_heads), [&](int64_t i, int) {
    const size_t at = static_cast<size_t>(i), batch = at / s.kv_heads, head = at % s.kv_heads;
    float* dst = joined + at * to.head;
    const size_t old = s.past * depth;
    if (old != 0) std::memcpy(dst, past + at * old, old * sizeof(float));
    const float* src = now + batch * from.batch + head * from.head;
    for (size_t r = 0; r < s.seq_k && depth != 0; ++r)
      std::memcpy(dst + old + r * depth, src + r * from.row, depth * sizeof(float));
  });
  *strides = to;
  return joined;
}

void AttentionOp::run(const BoundAttention& bound, const RunArgs& args) const {
  const AttentionShape& s = bound.shape;
  Task shared = {bound, args, nullptr, nullptr, {}, {}, nullptr, 0.f};
  shared.k = join(bound, args, 0, &shared.k_strides);
  shared.v = join(bound, args, 1, &shared.v_strides);
  shared.nonpad = has_nonpad_ ? args.input<int64_t>(6) : nullptr;
  shared.scale = has_scale_ ? scale_ : 1.f / std::sqrt(static_cast<float>(s.depth));
  if (has_output(3)) {
    AttentionScores scores = {attrs_,       s,        kernels_,     shared.k, shared.k_strides,
                              shared.scale, softcap_, scores_mode_, mask_,    shared.nonpad};
    write_attention_scores(scores, args);
  }
  if (s.output.elements() == 0) return;
  const size_t tasks = s.batch * s.kv_heads * bound.row_tasks;
  args.parallel.loop(static_cast<int64_t>(tasks), [&](int64_t i, int thread) {
    const ScratchPlan& plan = bound.scratch;
    auto* at = reinterpret_cast<float*>(args.scratch + bound.threads_offset +
                                        static_cast<size_t>(thread) * plan.bytes());
    Scratch scratch;
    scratch.keys = at;
    scratch.values = scratch.keys + plan.keys;
    scratch.scores = scratch.values + plan.values;
    scratch.p = scratch.scores + plan.scores;
    scratch.y = scratch.p + plan.p;
    scratch.max = scratch.y + plan.y;
    scratch.sum = scratch.max + plan.stats / 2;
    run_task(shared, static_cast<size_t>(i), scratch);
  });
}

// The keys of a row; none when a mask with one value for the whole row forbids it.
KeyRange AttentionOp::keys_of(const Task& task, size_t head, size_t row) const {
  const AttentionShape& s = task.bound.shape;
  if (s.mask_per_row) {
    const size_t at = task.mask_offset(head, row);
    const bool allowed = mask_ == DType::kBool ? task.args.input<uint8_t>(3)[at] != 0
                                               : task.args.input<float>(3)[at] != -HUGE_VALF;
    if (!allowed) return {0, 0};
  }
  return attention_keys(attrs_, s, task.nonpad, task.batch, row);
}

void AttentionOp::run_task(const Task& shared, size_t index, Scratch scratch) const {
  const BoundAttention& bound = shared.bound;
  const AttentionShape& s = bound.shape;
  Task task = shared;
  task.row = index % bound.row_tasks * bound.task_rows;
  task.rows = std::min(bound.task_rows, s.seq_q - task.row);
  task.kv_head = index / bound.row_tasks % s.kv_heads;
  task.batch = index / bound.row_tasks / s.kv_heads;
  std::fill_n(scratch.max, bound.scratch.stats / 2, -HUGE_VALF);
  std::fill_n(scratch.sum, bound.scratch.stats / 2, 0.f);
  std::fill_n(scratch.y, bound.scratch.y, 0.f);
  size_t first = s.total, last = 0;
  for (size_t r = task.row; r < task.row + task.rows; ++r) {
    const KeyRange keys = attention_keys(attrs_, s, task.nonpad, task.batch, r);
    first = std::min(first, keys.first);
    last = std::max(last, keys.last);
  }
  const size_t block = bound.block_keys;
  for (size_t key = first / block * block; key < last; key += block) {
    const size_t n = std::min(block, last - key);
    bound.few_rows ? single_rows(task, key, n, scratch) : tiles(task, key, n, scratch);
  }
  finish(task, scratch);
}

void AttentionOp::tiles(const Task& task, size_t key, size_t n, Scratch& scratch) const {
  const BoundAttention& bound = task.bound;
  const AttentionShape& s = bound.shape;
  const size_t nr = static_cast<size_t>(gemm_->nr);
  kernels_.pack_keys(task.key(key), task.k_strides.row, n, s.depth, nr, scratch.keys);
  kernels_.pack_values(task.value(key), task.v_strides.row, n, s.depth_v, nr, scratch.values);
  size_t slot = 0;
  for (size_t g = 0; g < s.group; ++g)
    for (size_t r = 0; r < task.rows; r += bound.tile_rows, ++slot)
      tile(task, task.kv_head * s.group + g, task.row + r, std::min(bound.tile_rows, task.rows - r),
           key, n, scratch, slot);
}

// One row's step of the softmax over keys [key, key + block.n).
float AttentionOp::softmax(const Task& task, size_t head, size_t row, size_t key,
                           AttentionRow& block) const {
  const KeyRange keys = keys_of(task, head, row);
  block.first = std::clamp(keys.first, key, key + block.n) - key;
  block.last = std::max(std::clamp(keys.last, key, key + block.n) - key, block.first);
  block.scale = task.scale;
  block.softcap = softcap_;
  if (mask_ != DType::kUndefined && !task.bound.shape.mask_per_row) {
    const size_t at = task.mask_offset(head, row) + key;
    // Keys beyond the mask's own are not allowed, so `last` bounds what is read of it.
    if (mask_ == DType::kBool)
      block.mask = task.args.input<uint8_t>(3) + at;
    else
      block.bias = task.args.input<float>(3) + at;
  }
  return kernels_.softmax_row(block);
}

void AttentionOp::tile(const Task& task, size_t head, size_t row, size_t rows, size_t key, size_t n,
                       const Scratch& scratch, size_t slot) const {
  const AttentionShape& s = task.bound.shape;
  const size_t nr = static_cast<size_t>(gemm_->nr), mr = static_cast<size_t>(gemm_->mr);
  const size_t tile_rows = task.bound.tile_rows, panel = tile_rows * nr;
  const size_t in_block = n;
  if (attrs_.causal) {  // the last row sees most
    const size_t last = attention_keys(attrs_, s, task.nonpad, task.batch, row + rows - 1).last;
    if (last <= key) return;
    n = std::min(n, last - key);
  }
  GemmF32Params product = {};
  product.k = s.depth;
  product.lhs_stride = s.q.row;
  for (size_t j = 0; j < ceil_div(n, nr); ++j)
    for (size_t i = 0; i < rows; i += mr) {
      product.m = std::min(mr, rows - i);
      product.lhs = task.q(head, row + i);
      product.rhs = scratch.keys + j * nr * s.depth;
      product.dst = scratch.scores + j * panel + i * nr;
      gemm_->run(product);
    }
  const size_t p_stride = task.bound.p_stride;
  const size_t panels = ceil_div(s.depth_v, nr);
  float* const y = scratch.y + slot * task.bound.y_tile;
  AttentionRow block = {};
  block.n = n;
  block.panel_stride = panel;
  block.width = nr;
  for (size_t i = 0; i < rows; ++i) {
    block.scores = scratch.scores + i * nr;
    block.max = scratch.max + slot * tile_rows + i;
    block.sum = scratch.sum + slot * tile_rows + i;
    block.p = scratch.p + i * p_stride;
    const float correction = softmax(task, head, row + i, key, block);
    float* const row_y = y + i * nr;
    if (correction != 1.f) kernels_.scale(row_y, panel, correction, panels * nr, nr, row_y, panel);
  }
  product.k = n;
  product.lhs_stride = p_stride;
  product.accumulate = true;
  for (size_t c = 0; c < panels; ++c)
    for (size_t i = 0; i < rows; i += mr) {
      product.m = std::min(mr, rows - i);
      product.lhs = scratch.p + i * p_stride;
      product.rhs = scratch.values + c * nr * in_block;
      product.dst = y + c * panel + i * nr;
      gemm_->run(product);
    }
}

void AttentionOp::single_rows(const Task& task, size_t key, size_t n, Scratch& scratch) const {
  const AttentionShape& s = task.bound.shape;
  for (size_t slot = 0; slot < s.group * task.rows; ++slot) {
    const size_t head = task.kv_head * s.group + slot / task.rows;
    const size_t row = task.row + slot % task.rows;
    kernels_.dot(task.q(head, row), task.key(key), task.k_strides.row, n, s.depth, scratch.scores);
    AttentionRow block = {};
    block.n = n;
    block.scores = scratch.scores;
    block.panel_stride = block.width = 16;
    block.max = scratch.max + slot;
    block.sum = scratch.sum + slot;
    block.p = scratch.p;
    const float correction = softmax(task, head, row, key, block);
    kernels_.accumulate(scratch.p, task.value(key), task.v_strides.row, n, s.depth_v, correction,
                        scratch.y + slot * task.bound.y_tile);
  }
}

// Divides by the sums and writes the rows of the task.
void AttentionOp::finish(const Task& task, const Scratch& scratch) const {
  const BoundAttention& bound = task.bound;
  const AttentionShape& s = bound.shape;
  const size_t width = bound.few_rows ? s.depth_v : static_cast<size_t>(gemm_->nr);
  const size_t tile_rows = bound.tile_rows, per_head = ceil_div(task.rows, tile_rows);
  for (size_t g = 0; g < s.group; ++g)
    for (size_t r = 0; r < task.rows; ++r) {
      const size_t slot = g * per_head + r / tile_rows, i = r % tile_rows;
      const float sum = scratch.sum[slot * tile_rows + i];
      const float factor = sum == 0.f ? 0.f : 1.f / sum;
      kernels_.scale(scratch.y + slot * bound.y_tile + i * width, tile_rows * width, factor,
                     s.depth_v, width, task.y(task.kv_head * s.group + g, task.row + r), width);
    }
}

}  // namespace

AttentionKernels find_attention_kernels(Isa max) { return kList.best(max)->run(); }

Status make_attention(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<AttentionOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
