// Recurrent layers. The inputs of many time steps are projected by one product, X W + b; the steps
// then run one after another, each a product with R and the gates (rnn_cell.cc).
//
// "LSTM", "GRU", "RNN": ONNX's operands (X, W, R, B?, sequence_lens?, initial_h?, initial_c?, P?),
//   attributes and outputs (Y?, Y_h?, Y_c?), all float32. W and R may be packed (packed = 1): bytes
//   of pack_gemm_f32 of the transposed pieces (rnn_matrix.h; the GRU's R without
//   linear_before_reset has the pieces zr and h, everything else is one piece), directions one
//   after another; input_size and hidden_size then say their shape.
// "lepton.DynamicQuantizeLSTM", …GRU, …RNN: the same with 8-bit W and R and the operands
//   8 W_scale, 9 W_zero_point?, 10 R_scale, 11 R_zero_point? behind them; scales and zero points
//   have one entry, one per direction or one per direction and column. Packed: pack_gemm_s8.
//   Each row of X and each H is quantised to uint8 over its own range, so a sequence's result
//   depends neither on the others in its batch nor on the number of threads.
// interleaved = 1: the columns of a packed R of a DynamicQuantizeLSTM are in the order of
// lstm_step.h, whose kernel computes all of a step. For the default activations, without
// peepholes, clip and input_forget.
// Kernel: a line of gemm_f32_kernels.inc or gemm_s8_kernels.inc, or none for the preferred one. The
// attribute recurrent_kernel names another one for R.
#include "ops/rnn.h"

#include <algorithm>
#include <memory>

namespace lepton {
namespace {

// Sizes beyond this are no recurrent layer's: keeps every product of two of them inside int64.
constexpr int64_t kMaxWidth = int64_t{1} << 24;
// Projected floats that a block of time steps may fill: about half of L2.
constexpr size_t kBlockFloats = 64 * 1024;
constexpr size_t kMinBlockRows = 24;
// Multiplications in a step's recurrent product that are worth sharing between threads.
constexpr size_t kWideStep = 256 * 1024;

size_t floats(size_t n) { return round_up(n * sizeof(float), kCacheLine); }

}  // namespace

Status RnnOp::init(const StepDesc& step, RnnKind kind, bool integer) {
  name_ = step.name;
  kind_ = kind;
  LEPTON_RETURN_IF_ERROR(init_operands(step));
  const Attrs& attrs = *step.attrs;
  const std::string_view direction = attrs.s("direction", "forward");
  if (direction == "bidirectional") {
    directions_ = 2;
  } else if (direction == "reverse") {
    reverse_ = true;
  } else if (direction != "forward") {
    return invalid_model(name_ + ": direction '" + std::string(direction) + "'");
  }
  const int64_t layout = attrs.i("layout");
  if (layout != 0 && layout != 1) return invalid_model(name_ + ": layout is neither 0 nor 1");
  batch_first_ = layout == 1;
  hidden_ = attrs.i("hidden_size");
  input_ = attrs.i("input_size", -1);
  if (hidden_ < 0 || hidden_ > kMaxWidth || input_ > kMaxWidth)
    return invalid_model(name_ + ": hidden_size or input_size is out of range");
  LEPTON_RETURN_IF_ERROR(init_equations(step));
  LEPTON_RETURN_IF_ERROR(w_.init(step, step.kernel, kW, integer ? 8 : -1, integer ? 9 : -1));
  const std::string_view recurrent = attrs.s("recurrent_kernel", step.kernel);
  LEPTON_RETURN_IF_ERROR(r_.init(step, recurrent, kR, integer ? 10 : -1, integer ? 11 : -1));
  if (w_.is_packed() && (hidden_ == 0 || input_ < 0))
    return invalid_model(name_ + ": packed weights without hidden_size and input_size");
  return attrs.i("interleaved") == 0 ? Status() : init_interleaved(step);
}

Status RnnOp::init_interleaved(const StepDesc& step) {
  for (size_t d = 0; d < directions_; ++d)
    if (equations_[d].cell == nullptr || has_[kP])
      return invalid_model(name_ + ": interleaved weights of a layer with equations of its own");
  return r_.init_interleaved(step.isa);
}

Status RnnOp::init_operands(const StepDesc& step) {
  const bool lstm = kind_ == RnnKind::kLstm;
  outputs_ = step.outputs.size();
  for (int i = 0; i < kOperands; ++i) has_[i] = step.has_input(static_cast<size_t>(i));
  if (!has_[kX] || !has_[kW] || !has_[kR]) return invalid_model(name_ + ": needs X, W and R");
  if (!lstm && (has_[kInitialC] || has_[kP]))
    return invalid_model(name_ + ": a cell state belongs to an LSTM");
  if (step.outputs.size() > (lstm ? 3u : 2u)) return invalid_model(name_ + ": too many outputs");
  for (const int i : {kX, kB, kInitialH, kInitialC, kP})
    if (has_[i] && step.inputs[static_cast<size_t>(i)].dtype != DType::kF32)
      return unsupported(name_ + ": operands of " +
                         name_of(step.inputs[static_cast<size_t>(i)].dtype));
  if (has_[kLengths] && step.inputs[kLengths].dtype != DType::kS32)
    return invalid_model(name_ + ": sequence_lens is not int32");
  for (const DType dtype : step.outputs)
    if (dtype != DType::kF32 && dtype != DType::kUndefined)
      return unsupported(name_ + ": output of " + name_of(dtype));
  return {};
}

Status RnnOp::init_equations(const StepDesc& step) {
  const Attrs& attrs = *step.attrs;
  const int count = functions_of(kind_);
  const char* const defaults = kind_ == RnnKind::kLstm  ? "Sigmoid;Tanh;Tanh"
                               : kind_ == RnnKind::kGru ? "Sigmoid;Tanh"
                                                        : "Tanh";
  RnnActivation functions[2 * kMaxFunctions];
  const int all = count * static_cast<int>(directions_);
  LEPTON_RETURN_IF_ERROR(read_rnn_activations(step, defaults, all, functions));
  const float clip = attrs.f("clip", 0.f);
  if (!(clip >= 0.f)) return invalid_model(name_ + ": clip is negative");
  for (size_t d = 0; d < directions_; ++d) {
    RnnEquations& equations = equations_[d];
    equations.kind = kind_;
    equations.linear_before_reset = attrs.i("linear_before_reset") != 0;
    equations.input_forget = attrs.i("input_forget") != 0;
    equations.clip = clip;
    equations.arithmetic = RnnArithmetic(step.isa);
    const RnnActivation* const own = functions + d * static_cast<size_t>(count);
    std::copy(own, own + count, equations.functions);
    equations.cell = find_lstm_cell(equations, step.isa);
  }
  return {};
}

Status RnnOp::bind_sizes(BindContext& context, BoundRnn* bound) const {
  const Shape& x = context.input(kX).shape;
  if (x.rank != 3) return invalid_input(name_ + ": X " + x.str() + " is not of rank 3");
  const Shape& r = context.input(kR).shape;
  int64_t hidden = hidden_;
  if (!r_.is_packed()) {
    if (r.rank != 3) return invalid_input(name_ + ": R " + r.str() + " is not of rank 3");
    if (hidden == 0) hidden = r[2];
  }
  if (hidden < 1 || hidden > kMaxWidth || x[2] > kMaxWidth)
    return invalid_input(name_ + ": hidden or input size out of range");
  bound->steps = static_cast<size_t>(x[batch_first_ ? 1 : 0]);
  bound->batch = static_cast<size_t>(x[batch_first_ ? 0 : 1]);
  bound->input = static_cast<size_t>(x[2]);
  bound->hidden = static_cast<size_t>(hidden);
  bound->columns = gates_of(kind_) * bound->hidden;
  bound->directions = directions_;
  if (input_ >= 0 && input_ != x[2])
    return invalid_input(name_ + ": X " + x.str() + " where W takes " + std::to_string(input_) +
                         " features");
  return {};
}

Status RnnOp::check_operands(BindContext& context, const BoundRnn& bound) const {
  const auto size = [](size_t n) { return static_cast<int64_t>(n); };
  const int64_t d = size(bound.directions), n = size(bound.columns), h = size(bound.hidden),
                b = size(bound.batch);
  const auto check = [&](Operand operand, const char* what, const Shape& wanted) -> Status {
    if (!has_[operand] || context.input(operand).shape == wanted) return {};
    return invalid_input(name_ + ": " + what + " " + context.input(operand).shape.str() +
                         " instead of " + wanted.str());
  };
  if (!w_.is_packed()) {
    LEPTON_RETURN_IF_ERROR(check(kW, "W", {d, n, size(bound.input)}));
    LEPTON_RETURN_IF_ERROR(check(kR, "R", {d, n, h}));
  }
  const Shape state = batch_first_ ? Shape{b, d, h} : Shape{d, b, h};
  LEPTON_RETURN_IF_ERROR(check(kB, "B", {d, 2 * n}));
  LEPTON_RETURN_IF_ERROR(check(kLengths, "sequence_lens", {b}));
  LEPTON_RETURN_IF_ERROR(check(kInitialH, "initial_h", state));
  LEPTON_RETURN_IF_ERROR(check(kInitialC, "initial_c", state));
  return check(kP, "P", {d, 3 * h});
}

Status RnnOp::set_outputs(BindContext& context, const BoundRnn& bound) const {
  const auto size = [](size_t n) { return static_cast<int64_t>(n); };
  const int64_t t = size(bound.steps), b = size(bound.batch), d = size(bound.directions),
                h = size(bound.hidden);
  const Shape whole = batch_first_ ? Shape{b, t, d, h} : Shape{t, d, b, h};
  const Shape state = batch_first_ ? Shape{b, d, h} : Shape{d, b, h};
  if (!is_valid(whole) || !is_valid({d, b, size(bound.columns)}))
    return invalid_input(name_ + ": the result would be too large");
  for (int i = 0; i < context.num_outputs(); ++i)
    if (context.output_dtype(i) != DType::kUndefined)
      LEPTON_RETURN_IF_ERROR(context.set_output(i, i == 0 ? whole : state));
  return {};
}

// Parts of the batch run side by side where that feeds the threads; otherwise threads share the
// products of one part.
void RnnOp::plan_tasks(int threads, BoundRnn* bound) const {
  const size_t all = static_cast<size_t>(threads), batch = std::max<size_t>(bound->batch, 1);
  const size_t affordable = ceil_div(batch, r_.mr());
  const size_t wanted = ceil_div(all, bound->directions);
  const size_t parts = std::min(affordable, wanted);
  const bool wide = batch * bound->columns * bound->hidden >= kWideStep;
  bound->tasks_in_parallel =
      threads > 1 && parts * bound->directions > 1 && (parts == wanted || !wide);
  const size_t used = bound->tasks_in_parallel ? parts : 1;
  bound->shares_steps = r_.pays_to_share(batch * bound->columns * bound->hidden);
  bound->rows_per_task = ceil_div(batch, used);
  bound->tasks = bound->directions * ceil_div(batch, bound->rows_per_task);
  const size_t share = bound->tasks_in_parallel ? 1 : all;
  const size_t rows = std::max(kMinBlockRows, kBlockFloats / bound->columns) * share;
  const size_t steps = std::max<size_t>(rows / bound->rows_per_task, 1);
  bound->steps_per_block = std::min(steps, std::max<size_t>(bound->steps, 1));
}

void RnnOp::plan_scratch(int threads, BoundRnn* bound) const {
  const size_t m = bound->rows_per_task, rows = m * bound->steps_per_block;
  RnnScratch& scratch = bound->scratch;
  size_t end = 0;
  const auto take = [&](size_t bytes) {
    const size_t at = end;
    end += round_up(bytes, kCacheLine);
    return at;
  };
  scratch.h = take(floats(m * bound->hidden));
  scratch.c = take(kind_ == RnnKind::kLstm ? floats(m * bound->hidden) : 0);
  scratch.reset = take(kind_ == RnnKind::kGru ? floats(m * bound->hidden) : 0);
  scratch.gates = take(floats(m * bound->columns));
  scratch.projected = take(floats(rows * bound->columns));
  const bool gathers = !rows_lie_ready(*bound, 0) || bound->directions == 2;
  scratch.rows = take(gathers ? floats(rows * bound->input) : 0);
  scratch.product =
      take(std::max(w_.product_scratch(rows, bound->input), r_.product_scratch(m, bound->hidden)));
  scratch.bytes = end;
  bound->w_offset = 0;
  bound->r_offset = bound->w.scratch_bytes;
  bound->bias_offset = bound->r_offset + bound->r.scratch_bytes;
  bound->tasks_offset =
      bound->bias_offset + (has_[kB] ? 2 * floats(bound->directions * bound->columns) : 0);
}

Status RnnOp::bind(BindContext& context) const {
  BoundRnn bound = {};
  LEPTON_RETURN_IF_ERROR(bind_sizes(context, &bound));
  LEPTON_RETURN_IF_ERROR(check_operands(context, bound));
  const bool two_pieces = kind_ == RnnKind::kGru && !equations_[0].linear_before_reset;
  const size_t first = two_pieces ? 2 * bound.hidden : bound.columns;
  LEPTON_RETURN_IF_ERROR(
      w_.bind(context, {directions_, bound.columns, bound.input, bound.columns}, &bound.w));
  LEPTON_RETURN_IF_ERROR(
      r_.bind(context, {directions_, bound.columns, bound.hidden, first}, &bound.r));
  LEPTON_RETURN_IF_ERROR(set_outputs(context, bound));
  const int threads = context.threads();
  plan_tasks(threads, &bound);
  plan_scratch(threads, &bound);
  const size_t slots = bound.tasks_in_parallel ? static_cast<size_t>(threads) : 1;
  context.set_scratch(bound.tasks_offset + slots * bound.scratch.bytes);
  context.set_run([this, bound](const RunArgs& args) { return run(bound, args); });
  return {};
}

namespace {

Status make_op(const StepDesc& step, RnnKind kind, bool integer, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<RnnOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step, kind, integer));
  *op = std::move(made);
  return {};
}

RnnKind kind_of(std::string_view key) {
  const std::string_view tail = key.substr(key.size() - 3);
  return tail == "GRU" ? RnnKind::kGru : tail == "RNN" ? RnnKind::kRnn : RnnKind::kLstm;
}

}  // namespace

Status make_rnn(const StepDesc& step, std::unique_ptr<Op>* op) {
  return make_op(step, kind_of(step.op), false, op);
}

Status make_dynamic_quantize_rnn(const StepDesc& step, std::unique_ptr<Op>* op) {
  return make_op(step, kind_of(step.op), true, op);
}

}  // namespace lepton
