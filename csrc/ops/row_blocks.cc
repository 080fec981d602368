// "A+B+C": steps that work row by row, one after another over blocks of rows.
//
// What follows a matrix product row by row (bias, requantisation, a table, a residual, layer
// normalisation) is done while a block of its rows is still in cache; between the steps no thread
// waits for another, and nothing but the results is written to memory that all steps share. Every
// step is an operator of ops.inc as it is: bound to the rows of one block and run by one thread. A
// product of too few rows to share out runs step after step instead, each with all threads.
//
//   inputs, outputs: what the steps read from outside and give to it
//   rows      for each input, 1: [..., n], whose leading dimensions are the rows; 0: not cut
//   values    dtypes of what the steps make, in the order of making
//   results   for each output, its value
//   i.in, i.out  operands of step i: an input, or the number of inputs + a value; -1: omitted
//   i.NAME    its attributes
//   The steps' operators and kernels, each joined by '+', are the operator and kernel of this one.
#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "ops/joined_step.h"
#include "ops/op.h"

namespace lepton {
namespace {

constexpr size_t kMaxOperands = 48;
// Rows of a block: enough for a panel of weights to be worth loading, few enough to stay in L2.
constexpr size_t kMinRows = 16, kMaxRows = 192;
constexpr size_t kBlockBytes = 256 * 1024;

// Operators of which every row of a result depends on that row of the operands alone, and which
// fail in bind or never.
constexpr std::string_view kRowWise[] = {
    "lepton.QLinearMatMul", "lepton.Elementwise", "lepton.Lookup",   "LayerNormalization",
    "RMSNormalization",     "QuantizeLinear",     "DequantizeLinear"};

// The parts of "a+b+c".
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find('+')) != std::string_view::npos; text.remove_prefix(end + 1))
    parts.push_back(text.substr(0, end));
  parts.push_back(text);
  return parts;
}

struct RowStep {
  std::unique_ptr<Op> op;
  Attrs attrs;
  std::vector<int> in, out;
};

// The steps bound to one number of rows.
struct BoundRows {
  size_t rows = 0;
  std::vector<RunFn> run;
  std::vector<size_t> row_bytes;         // of every input (0: not cut) and value
  std::vector<size_t> offset;            // of every value that is no result, from a thread's memory
  size_t scratch_offset = 0, bytes = 0;  // a thread's memory: values, then scratch of a step
};

class RowBlocksOp final : public Op {
 public:
  Status init(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  Status init_step(const StepDesc& whole, size_t index, std::string_view op,
                   std::string_view kernel);
  Status read_operands(const StepDesc& whole, const std::string& name, size_t made,
                       std::vector<int>* operands) const;
  Status find_rows(const BindContext& context, Shape* lead) const;
  Status bind_rows(const BindContext& context, size_t rows, int threads, BoundRows* bound,
                   std::vector<int64_t>* widths) const;
  void run_rows(const BoundRows& bound, const RunArgs& args, size_t first, std::byte* memory,
                Parallel parallel) const;
  size_t num_inputs() const { return cut_.size(); }
  int result_of(size_t value) const;

  std::vector<RowStep> steps_;
  std::vector<bool> cut_;        // per input
  std::vector<DType> values_;    // per value
  std::vector<size_t> results_;  // per output
};

int RowBlocksOp::result_of(size_t value) const {
  const auto at = std::find(results_.begin(), results_.end(), value);
  return at == results_.end() ? -1 : static_cast<int>(at - results_.begin());
}

Status RowBlocksOp::init(const StepDesc& step) {
  const Attrs::Ints rows = step.attrs->ints("rows"), values = step.attrs->ints("values");
  const Attrs::Ints results = step.attrs->ints("results");
  if (rows.size != step.inputs.size() || results.size != step.outputs.size() || values.size == 0)
    return invalid_model("operands and attributes of joined steps do not agree");
  for (size_t i = 0; i < rows.size; ++i) {
    if (!step.has_input(i)) return invalid_model("an input of joined steps is missing");
    cut_.push_back(rows.data[i] != 0);
  }
  for (size_t i = 0; i < values.size; ++i) values_.push_back(static_cast<DType>(values.data[i]));
  for (size_t i = 0; i < results.size; ++i) {
    if (results.data[i] < 0 || static_cast<size_t>(results.data[i]) >= values.size ||
        values_[static_cast<size_t>(results.data[i])] != step.outputs[i])
      return invalid_model("a result of joined steps is none of their values");
    results_.push_back(static_cast<size_t>(results.data[i]));
  }
  const std::vector<std::string_view> ops = split(step.op);
  std::vector<std::string_view> kernels = split(step.kernel);
  kernels.resize(std::max(ops.size(), kernels.size()));
  size_t made = 0;
  for (size_t i = 0; i < ops.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(init_step(step, i, ops[i], kernels[i]));
    for (int id : steps_.back().out)
      if (id != static_cast<int>(num_inputs() + made++))
        return invalid_model("joined steps make their values in another order");
  }
  return made == values_.size() ? Status() : invalid_model("a value of joined steps is not made");
}

Status RowBlocksOp::read_operands(const StepDesc& whole, const std::string& name, size_t made,
                                  std::vector<int>* operands) const {
  const Attrs::Ints given = whole.attrs->ints(name);
  if (given.size == 0 || given.size > kMaxOperands)
    return invalid_model("\"" + name + "\" of joined steps is missing or too long");
  for (size_t i = 0; i < given.size; ++i) {
    if (given.data[i] < -1 || given.data[i] >= static_cast<int64_t>(num_inputs() + made))
      return invalid_model("joined steps read what is not made yet");
    operands->push_back(static_cast<int>(given.data[i]));
  }
  return {};
}

Status RowBlocksOp::init_step(const StepDesc& whole, size_t index, std::string_view op,
                              std::string_view kernel) {
  const std::string prefix = std::to_string(index) + ".";
  size_t made = 0;
  for (const RowStep& step : steps_) made += step.out.size();
  RowStep step;
  LEPTON_RETURN_IF_ERROR(read_operands(whole, prefix + "in", made, &step.in));
  LEPTON_RETURN_IF_ERROR(read_operands(whole, prefix + "out", values_.size(), &step.out));
  step.attrs = whole.attrs->group(prefix);
  steps_.push_back(std::move(step));
  RowStep& kept = steps_.back();
  StepDesc desc;
  desc.op = op;
  desc.name = whole.name;
  desc.kernel = kernel;
  desc.attrs = &kept.attrs;
  desc.isa = whole.isa;
  for (int id : kept.in) {
    TensorInfo info;
    info.present = id >= 0;
    const size_t at = static_cast<size_t>(id);
    if (id >= 0 && at < num_inputs()) info = whole.inputs[at];
    if (id >= static_cast<int>(num_inputs())) info.dtype = values_[at - num_inputs()];
    desc.inputs.push_back(info);
  }
  for (int id : kept.out) {
    if (id < static_cast<int>(num_inputs())) return invalid_model("joined steps write an input");
    desc.outputs.push_back(values_[static_cast<size_t>(id) - num_inputs()]);
  }
  if (std::find(std::begin(kRowWise), std::end(kRowWise), op) == std::end(kRowWise))
    return invalid_model(std::string(op) + " cannot be joined with others");
  return find_op(op)(desc, &kept.op);
}

Status RowBlocksOp::find_rows(const BindContext& context, Shape* lead) const {
  bool found = false;
  for (size_t i = 0; i < num_inputs(); ++i) {
    if (!cut_[i]) continue;
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
  bound->row_bytes.assign(num_inputs() + values_.size(), 0);
  bound->offset.assign(values_.size(), 0);
  widths->assign(values_.size(), 0);
  const auto height = static_cast<int64_t>(rows);
  size_t scratch = 0;
  for (const RowStep& step : steps_) {
    std::vector<TensorInfo> inputs;
    for (int id : step.in) {
      TensorInfo info;
      const size_t at = static_cast<size_t>(id);
      if (id >= static_cast<int>(num_inputs())) {
        info.dtype = values_[at - num_inputs()];
        info.present = true;
        info.shape = {height, (*widths)[at - num_inputs()]};
      } else if (id >= 0) {
        info = context.input(id);
        if (cut_[at]) {
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
    for (int id : step.out) outputs.push_back(values_[static_cast<size_t>(id) - num_inputs()]);
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
      bound->row_bytes[at] = static_cast<size_t>(shape[1]) * size_of(values_[value]);
      if (result_of(value) >= 0) continue;
      bound->offset[value] = bound->scratch_offset;
      bound->scratch_offset += round_up(rows * bound->row_bytes[at], kCacheLine);
    }
    scratch = std::max(scratch, binder.scratch);
    bound->run.push_back(std::move(binder.run));
  }
  bound->bytes = bound->scratch_offset + round_up(scratch, kCacheLine);
  return {};
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
    if (cut_[i])
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
  for (size_t i = 0; i < results_.size(); ++i) {
    Shape shape = lead;
    shape.push_back(widths[results_[i]]);
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
               shared_out ? Parallel() : args.parallel);
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
                           std::byte* memory, Parallel parallel) const {
  const auto pointer = [&](int id) -> std::byte* {
    if (id < 0) return nullptr;
    const size_t at = static_cast<size_t>(id), offset = first * bound.row_bytes[at];
    if (at < num_inputs()) return static_cast<std::byte*>(const_cast<void*>(args.in[at])) + offset;
    const int result = result_of(at - num_inputs());
    return result < 0 ? memory + bound.offset[at - num_inputs()]
                      : static_cast<std::byte*>(args.out[result]) + offset;
  };
  for (size_t s = 0; s < steps_.size(); ++s) {
    const void* in[kMaxOperands];
    void* out[kMaxOperands];
    for (size_t i = 0; i < steps_[s].in.size(); ++i) in[i] = pointer(steps_[s].in[i]);
    for (size_t i = 0; i < steps_[s].out.size(); ++i) out[i] = pointer(steps_[s].out[i]);
    (void)bound.run[s](RunArgs{in, out, memory + bound.scratch_offset, parallel});
  }
}

}  // namespace

Status make_row_blocks(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<RowBlocksOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
