// "A+B+C": steps that work row by row, one after another over blocks of rows.
//
// What follows a matrix product row by row (bias, requantisation, a table, a residual, layer
// normalisation) is done while a block of its rows is still in cache; between the steps no thread
// waits for another, and nothing but the results is written to memory that all steps share. Every
// step is an operator of ops.inc as it is: bound to the rows of one block and run by one thread. A
// product of too few rows to share out runs step after step instead, each with all threads.
//
// Attributes: joined_step.h; an input that is cut is [..., n], whose leading dimensions are the
// rows.
#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "ops/joined_step.h"
#include "ops/op.h"

namespace lepton {
namespace {

// Rows of a block: enough for a panel of weights to be worth loading, few enough to stay in L2.
constexpr size_t kMinRows = 16, kMaxRows = 256;
constexpr size_t kBlockBytes = 1024 * 1024;

// Operators of which every row of a result depends on that row of the operands alone, and which
// fail in bind or never.
constexpr std::string_view kRowWise[] = {
    "lepton.QLinearMatMul", "lepton.Elementwise", "lepton.Lookup",   "LayerNormalization",
    "RMSNormalization",     "QuantizeLinear",     "DequantizeLinear"};

bool is_row_wise(std::string_view op) {
  return std::find(std::begin(kRowWise), std::end(kRowWise), op) != std::end(kRowWise);
}

// The steps bound to one number of rows.
struct BoundRows {
  size_t rows = 0;
  std::vector<RunFn> run;
  std::vector<Ahead> ahead;              // of every step: the first weights of those after it
  std::vector<size_t> row_bytes;         // of every input (0: not cut) and value
  std::vector<size_t> offset;            // of every value that is no result, from a thread's memory
  size_t scratch_offset = 0, bytes = 0;  // a thread's memory: values, then scratch of a step
};

class RowBlocksOp final : public Op {
 public:
  JoinedSteps joined;

  Status bind(BindContext& context) const override;

 private:
  Status find_rows(const BindContext& context, Shape* lead) const;
  Status bind_rows(const BindContext& context, size_t rows, int threads, BoundRows* bound,
                   std::vector<int64_t>* widths) const;
  void look_ahead(const BindContext& context, BoundRows* bound) const;
  void run_rows(const BoundRows& bound, const RunArgs& args, size_t first, std::byte* memory,
                Parallel parallel, const Ahead& ahead) const;
  size_t num_inputs() const { return joined.num_inputs(); }
};

Status RowBlocksOp::find_rows(const BindContext& context, Shape* lead) const {
  bool found = false;
  for (size_t i = 0; i < num_inputs(); ++i) {
    if (!joined.cut[i]) continue;
    const Shape& shape = context.input(static_cast<int>(i)).shape;
    if (shape.rank < 1) return invalid_input("joined steps need rows, not " + shape.str());
    const Shape mine = Shape::of(shape.dims, shape.rank - 1);
    if (found && mine != *lead)
      return invalid_input("rows of " + shape.str() + " and of " + lead->str() + " differ");
    *lead = mine;
    found = true;
  }
  return found ? Status() : invalid_model("joined steps without rows");
}

Status RowBlocksOp::bind_rows(const BindContext& context, size_t rows, int threads,
                              BoundRows* bound, std::vector<int64_t>* widths) const {
  bound->rows = rows;
  bound->row_bytes.assign(num_inputs() + joined.values.size(), 0);
  bound->offset.assign(joined.values.size(), 0);
  widths->assign(joined.values.size(), 0);
  const auto height = static_cast<int64_t>(rows);
  size_t scratch = 0;
  for (const JoinedStep& step : joined.steps) {
    std::vector<TensorInfo> inputs;
    for (int id : step.in) {
      TensorInfo info;
      const size_t at = static_cast<size_t>(id);
      if (id >= static_cast<int>(num_inputs())) {
        info.dtype = joined.values[at - num_inputs()];
        info.present = true;
        info.shape = {height, (*widths)[at - num_inputs()]};
      } else if (id >= 0) {
        info = context.input(id);
        if (joined.cut[at]) {
          const int64_t width = info.shape[info.shape.rank - 1];
          info.shape = {height, width};
          info.data = nullptr;
          bound->row_bytes[at] = static_cast<size_t>(width) * size_of(info.dtype);
        } else if (info.shape.rank > 2 && info.shape.product(0, info.shape.rank - 1) == 1) {
          info.shape = {info.shape[info.shape.rank - 1]};  // one row for all
        }
      }
      inputs.push_back(info);
    }
    std::vector<DType> outputs;
    for (int id : step.out)
      outputs.push_back(joined.values[static_cast<size_t>(id) - num_inputs()]);
    JoinedBinder binder(std::move(inputs), std::move(outputs), threads);
    LEPTON_RETURN_IF_ERROR(step.op->bind(binder));
    if (!binder.run) return internal_error("a joined step does not run");
    for (size_t i = 0; i < step.out.size(); ++i) {
      const size_t at = static_cast<size_t>(step.out[i]), value = at - num_inputs();
      const Shape& shape = binder.shape(i);
      if (shape.rank != 2 || shape[0] != height)
        return invalid_input("a joined step made " + shape.str() + " of " + std::to_string(rows) +
                             " rows");
      (*widths)[value] = shape[1];
      bound->row_bytes[at] = static_cast<size_t>(shape[1]) * size_of(joined.values[value]);
      if (joined.result_of(value) >= 0) continue;
      bound->offset[value] = bound->scratch_offset;
      bound->scratch_offset += round_up(rows * bound->row_bytes[at], kCacheLine);
    }
    scratch = std::max(scratch, binder.scratch);
    bound->run.push_back(std::move(binder.run));
  }
  bound->bytes = thread_share(bound->scratch_offset + scratch);
  look_ahead(context, bound);
  return {};
}

void RowBlocksOp::look_ahead(const BindContext& context, BoundRows* bound) const {
  Ahead ahead;
  bound->ahead.resize(joined.steps.size());
  for (size_t s = joined.steps.size(); s-- > 0;) {
    bound->ahead[s] = ahead;
    const std::vector<int>& inputs = joined.steps[s].in;
    for (size_t j = inputs.size(); j-- > 0;) {
      if (inputs[j] < 0 || static_cast<size_t>(inputs[j]) >= num_inputs()) continue;
      const Ahead weights = weights_of(context.input(inputs[j]));
      if (weights.bytes > 0) ahead = weights;
    }
  }
}

// Rows of a block, all blocks nearly equal.
size_t block_rows(size_t rows, size_t threads, size_t row_bytes) {
  if (rows == 0) return 0;
  const size_t fitting = kBlockBytes / std::max<size_t>(row_bytes, 1);
  const size_t most = std::clamp(fitting, 2 * kMinRows, kMaxRows);
  size_t blocks = (rows + most - 1) / most;
  blocks = round_up(blocks, threads);
  return round_up((rows + blocks - 1) / blocks, 4);
}

Status RowBlocksOp::bind(BindContext& context) const {
  Shape lead;
  LEPTON_RETURN_IF_ERROR(find_rows(context, &lead));
  const size_t rows = static_cast<size_t>(lead.elements());
  const size_t threads = static_cast<size_t>(context.threads());
  size_t row_bytes = 1;
  for (size_t i = 0; i < num_inputs(); ++i) {
    const TensorInfo& info = context.input(static_cast<int>(i));
    if (joined.cut[i])
      row_bytes = std::max(
          row_bytes, static_cast<size_t>(info.shape[info.shape.rank - 1]) * size_of(info.dtype));
  }
  const bool shared_out = threads == 1 || rows >= threads * kMinRows;
  const size_t height = shared_out ? block_rows(rows, threads, row_bytes) : rows;
  const size_t most = std::min(rows, height);
  auto bound = std::make_shared<std::array<BoundRows, 2>>();
  std::vector<int64_t> widths;
  const int inside = shared_out ? 1 : context.threads();
  LEPTON_RETURN_IF_ERROR(bind_rows(context, most, inside, &(*bound)[0], &widths));
  const size_t rest = most == 0 ? 0 : rows % most;
  if (rest != 0) LEPTON_RETURN_IF_ERROR(bind_rows(context, rest, inside, &(*bound)[1], &widths));
  for (size_t i = 0; i < joined.results.size(); ++i) {
    Shape shape = lead;
    shape.push_back(widths[joined.results[i]]);
    LEPTON_RETURN_IF_ERROR(context.set_output(static_cast<int>(i), shape));
  }
  const size_t bytes = std::max((*bound)[0].bytes, (*bound)[1].bytes);
  context.set_scratch(bytes * (shared_out ? threads : 1));
  const size_t blocks = most == 0 ? 0 : (rows + most - 1) / most;
  context.set_run([this, bound, blocks, bytes, rest, shared_out](const RunArgs& args) {
    const auto block = [&](int64_t i, int thread) {
      const size_t at = static_cast<size_t>(i);
      const BoundRows& rows_bound = (*bound)[at + 1 == blocks && rest != 0 ? 1 : 0];
      run_rows(rows_bound, args, at * (*bound)[0].rows,
               args.scratch + static_cast<size_t>(thread) * bytes,
               shared_out ? Parallel() : args.parallel, at + 1 == blocks ? args.ahead : Ahead());
    };
    if (shared_out) {
      args.parallel.loop(static_cast<int64_t>(blocks), block);
    } else if (blocks != 0) {
      block(0, 0);
    }
    return Status();
  });
  return {};
}

void RowBlocksOp::run_rows(const BoundRows& bound, const RunArgs& args, size_t first,
                           std::byte* memory, Parallel parallel, const Ahead& ahead) const {
  const auto pointer = [&](int id) -> std::byte* {
    if (id < 0) return nullptr;
    const size_t at = static_cast<size_t>(id), offset = first * bound.row_bytes[at];
    if (at < num_inputs()) return static_cast<std::byte*>(const_cast<void*>(args.in[at])) + offset;
    const int result = joined.result_of(at - num_inputs());
    return result < 0 ? memory + bound.offset[at - num_inputs()]
                      : static_cast<std::byte*>(args.out[result]) + offset;
  };
  for (size_t s = 0; s < joined.steps.size(); ++s) {
    const void* in[kMaxJoinedOperands];
    void* out[kMaxJoinedOperands];
    for (size_t i = 0; i < joined.steps[s].in.size(); ++i) in[i] = pointer(joined.steps[s].in[i]);
    for (size_t i = 0; i < joined.steps[s].out.size(); ++i)
      out[i] = pointer(joined.steps[s].out[i]);
    const Ahead& next = bound.ahead[s].bytes > 0 ? bound.ahead[s] : ahead;
    (void)bound.run[s](RunArgs{in, out, memory + bound.scratch_offset, parallel, next});
  }
}

}  // namespace

Status make_row_blocks(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<RowBlocksOp>();
  LEPTON_RETURN_IF_ERROR(made->joined.init(step, is_row_wise));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
