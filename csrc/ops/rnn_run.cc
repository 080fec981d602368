// Runs a recurrent layer: tasks (one direction, some batch entries) over blocks of time steps.
//
// A task's rows are in the order of its own steps, step · rows_per_task + entry: a reverse
// direction reads X backwards, from each sequence's own end, when it gathers its rows.
#include <algorithm>

#include "ops/rnn.h"

namespace lepton {

struct RnnOp::Task {
  const BoundRnn& bound;
  const RunArgs& args;
  RnnMatrixRun w, r;
  size_t direction, first, m;  // batch entries [first, first + m)
  const int32_t* lengths;      // of these entries, or null
  int64_t steps;               // the longest of these sequences
  std::byte* scratch;
  Parallel parallel;

  float* part(size_t offset) const { return reinterpret_cast<float*>(scratch + offset); }
  int64_t length(size_t i) const {
    return lengths == nullptr ? static_cast<int64_t>(bound.steps) : lengths[i];
  }
};

namespace {

void copy(const float* from, float* to, size_t n) { std::copy(from, from + n, to); }

}  // namespace

Status RnnOp::check_lengths(const BoundRnn& bound, const RunArgs& args) const {
  if (!has_[kLengths]) return {};
  const int32_t* const lengths = args.input<int32_t>(kLengths);
  for (size_t i = 0; i < bound.batch; ++i)
    if (lengths[i] < 0 || static_cast<size_t>(lengths[i]) > bound.steps)
      return invalid_input(name_ + ": sequence_lens holds " + std::to_string(lengths[i]) +
                           " where X has " + std::to_string(bound.steps) + " steps");
  return {};
}

// [directions][columns] of what is added to the projection, then of what stays with the recurrent
// product: the bias of h where a GRU applies its reset gate after that product.
void RnnOp::sum_biases(const BoundRnn& bound, const RunArgs& args) const {
  if (!has_[kB]) return;
  const size_t n = bound.columns;
  const float* b = args.input<float>(kB);
  float* const projected = reinterpret_cast<float*>(args.scratch + bound.bias_offset);
  float* const reset = projected + round_up(bound.directions * n, kCacheLine / sizeof(float));
  const size_t kept =
      kind_ == RnnKind::kGru && equations_[0].linear_before_reset ? 2 * bound.hidden : n;
  for (size_t d = 0; d < bound.directions; ++d, b += 2 * n)
    for (size_t j = 0; j < n; ++j) {
      projected[d * n + j] = j < kept ? b[j] + b[n + j] : b[j];
      reset[d * n + j] = j < kept ? 0.f : b[n + j];
    }
}

Status RnnOp::run(const BoundRnn& bound, const RunArgs& args) const {
  if (bound.batch == 0) return {};
  LEPTON_RETURN_IF_ERROR(check_lengths(bound, args));
  const RnnMatrixRun w = w_.prepare(bound.w, args, args.scratch + bound.w_offset);
  const RnnMatrixRun r = r_.prepare(bound.r, args, args.scratch + bound.r_offset);
  sum_biases(bound, args);
  const auto body = [&](int64_t i, int slot, Parallel parallel) {
    const size_t part = static_cast<size_t>(i) / bound.directions;
    const size_t first = part * bound.rows_per_task;
    const size_t m = std::min(bound.rows_per_task, bound.batch - first);
    std::byte* const scratch =
        args.scratch + bound.tasks_offset + static_cast<size_t>(slot) * bound.scratch.bytes;
    const int32_t* const lengths = has_[kLengths] ? args.input<int32_t>(kLengths) + first : nullptr;
    const int64_t steps = lengths == nullptr ? static_cast<int64_t>(bound.steps)
                                             : *std::max_element(lengths, lengths + m);
    Task task = {bound,   args, w,       r,     static_cast<size_t>(i) % bound.directions,
                 first,   m,    lengths, steps, scratch,
                 parallel};
    run_task(task);
  };
  const int64_t tasks = static_cast<int64_t>(bound.tasks);
  if (bound.tasks_in_parallel) {
    args.parallel.loop(tasks, [&](int64_t i, int slot) { body(i, slot, Parallel()); });
  } else {
    for (int64_t i = 0; i < tasks; ++i) body(i, 0, bound.shares_steps ? args.parallel : Parallel());
  }
  return {};
}

void RnnOp::run_task(Task& task) const {
  const BoundRnn& bound = task.bound;
  const size_t n = bound.columns, d = task.direction;
  const size_t bias_floats = round_up(bound.directions * n, kCacheLine / sizeof(float));
  const float* const bias =
      reinterpret_cast<const float*>(task.args.scratch + bound.bias_offset) + d * n;
  start_state(task);
  RnnStep step = {};
  step.m = task.m;
  step.hidden = bound.hidden;
  step.reset_bias = has_[kB] ? bias + bias_floats : nullptr;
  step.peepholes = has_[kP] ? task.args.input<float>(kP) + d * 3 * bound.hidden : nullptr;
  step.lengths = task.lengths;
  step.h = task.part(bound.scratch.h);
  step.c = task.part(bound.scratch.c);
  step.gates = task.part(bound.scratch.gates);
  step.reset = task.part(bound.scratch.reset);
  const RnnRecurrence recurrence(r_, bound.r, task.r, d, task.scratch + bound.scratch.product,
                                 task.parallel);
  const int64_t block = static_cast<int64_t>(bound.steps_per_block);
  for (int64_t begin = 0; begin < task.steps; begin += block) {
    const int64_t end = std::min(begin + block, task.steps);
    const size_t steps = static_cast<size_t>(end - begin);
    project(task, gather_rows(task, begin, steps), steps);
    step.projected = task.part(bound.scratch.projected);
    for (step.step = begin; step.step < end; ++step.step, step.projected += task.m * n) {
      run_rnn_step(equations_[d], step, recurrence);
      write_step(task, step.step);
    }
  }
  finish_task(task);
}

void RnnOp::start_state(Task& task) const {
  const BoundRnn& bound = task.bound;
  const size_t n = bound.hidden;
  const auto start = [&](Operand initial, float* state) {
    for (size_t i = 0; i < task.m; ++i) {
      const size_t row = state_row(bound, task.direction, task.first + i);
      if (has_[initial])
        copy(task.args.input<float>(initial) + row * n, state + i * n, n);
      else
        std::fill(state + i * n, state + (i + 1) * n, 0.f);
    }
  };
  start(kInitialH, task.part(bound.scratch.h));
  if (kind_ == RnnKind::kLstm) start(kInitialC, task.part(bound.scratch.c));
}

// Rows of X of steps [first, first + steps) in the task's order; zeros beyond a sequence's end.
const float* RnnOp::gather_rows(Task& task, int64_t first, size_t steps) const {
  const BoundRnn& bound = task.bound;
  const float* const x = task.args.input<float>(kX);
  const size_t k = bound.input;
  if (rows_lie_ready(bound, task.direction)) return x + static_cast<size_t>(first) * task.m * k;
  float* const rows = task.part(bound.scratch.rows);
  const bool backwards = reverse(task.direction);
  task.parallel.loop(static_cast<int64_t>(steps), [&](int64_t s, int) {
    const int64_t step = first + s;
    float* to = rows + static_cast<size_t>(s) * task.m * k;
    for (size_t i = 0; i < task.m; ++i, to += k) {
      const int64_t length = task.length(i);
      if (step >= length) {
        std::fill(to, to + k, 0.f);
        continue;
      }
      const size_t time = static_cast<size_t>(backwards ? length - 1 - step : step);
      const size_t entry = task.first + i;
      copy(x + (batch_first_ ? entry * bound.steps + time : time * bound.batch + entry) * k, to, k);
    }
  });
  return rows;
}

void RnnOp::project(Task& task, const float* rows, size_t steps) const {
  const BoundRnn& bound = task.bound;
  RnnProduct product = {};
  product.direction = task.direction;
  product.m = steps * task.m;
  product.rows = rows;
  product.row_stride = bound.input;
  if (has_[kB])
    product.bias = reinterpret_cast<const float*>(task.args.scratch + bound.bias_offset) +
                   task.direction * bound.columns;
  product.dst = task.part(bound.scratch.projected);
  product.dst_stride = bound.columns;
  product.scratch = task.scratch + bound.scratch.product;
  w_.multiply(bound.w, task.w, product, task.parallel);
}

void RnnOp::write_step(Task& task, int64_t step) const {
  const BoundRnn& bound = task.bound;
  float* const y = outputs_ > 0 ? task.args.output<float>(0) : nullptr;
  if (y == nullptr) return;
  const size_t n = bound.hidden;
  const float* const h = task.part(bound.scratch.h);
  for (size_t i = 0; i < task.m; ++i) {
    const int64_t length = task.length(i);
    const bool inside = step < length;
    // Steps beyond the end stand where they would in time: zeros behind the sequence.
    const size_t time =
        static_cast<size_t>(inside && reverse(task.direction) ? length - 1 - step : step);
    float* const to = y + output_row(bound, task.direction, task.first + i, time) * n;
    if (inside)
      copy(h + i * n, to, n);
    else
      std::fill(to, to + n, 0.f);
  }
}

void RnnOp::finish_task(Task& task) const {
  const BoundRnn& bound = task.bound;
  const size_t n = bound.hidden;
  float* const y = outputs_ > 0 ? task.args.output<float>(0) : nullptr;
  for (size_t i = 0; i < task.m && y != nullptr; ++i)
    for (size_t time = static_cast<size_t>(task.steps); time < bound.steps; ++time) {
      float* const to = y + output_row(bound, task.direction, task.first + i, time) * n;
      std::fill(to, to + n, 0.f);
    }
  const auto finish = [&](float* out, const float* state) {
    for (size_t i = 0; i < task.m && out != nullptr; ++i) {
      const size_t row = state_row(bound, task.direction, task.first + i);
      copy(state + i * n, out + row * n, n);
    }
  };
  if (outputs_ > 1) finish(task.args.output<float>(1), task.part(bound.scratch.h));
  if (outputs_ > 2) finish(task.args.output<float>(2), task.part(bound.scratch.c));
}

}  // namespace lepton
