// Recurrent layers: what rnn.cc (reading and binding) and rnn_run.cc (running) share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ops/op.h"
#include "ops/rnn_cell.h"
#include "ops/rnn_matrix.h"

namespace lepton {

// Scratch of one task, as offsets into it.
struct RnnScratch {
  size_t h, c, gates, reset, projected, rows, product;
  size_t bytes;
};

// What bind computes for one set of shapes.
struct BoundRnn {
  size_t steps, batch, input, hidden, columns, directions;
  BoundRnnMatrix w, r;
  size_t rows_per_task;    // batch entries that run together
  size_t tasks;            // directions × parts of the batch
  bool tasks_in_parallel;  // else one after another, each with all threads ...
  bool shares_steps;       // ... or, where its steps are too short for that, with one
  size_t steps_per_block;  // time steps that are projected at once
  size_t w_offset, r_offset, bias_offset, tasks_offset;
  RnnScratch scratch;
};

class RnnOp final : public Op {
 public:
  Status init(const StepDesc& step, RnnKind kind, bool integer);
  Status bind(BindContext& context) const override;

 private:
  // Operands: X W R B sequence_lens initial_h initial_c P, in the order of ONNX.
  enum Operand { kX, kW, kR, kB, kLengths, kInitialH, kInitialC, kP, kOperands };
  struct Task;

  Status init_operands(const StepDesc& step);
  Status init_equations(const StepDesc& step);
  Status init_interleaved(const StepDesc& step);
  Status bind_sizes(BindContext& context, BoundRnn* bound) const;
  Status check_operands(BindContext& context, const BoundRnn& bound) const;
  Status set_outputs(BindContext& context, const BoundRnn& bound) const;
  void plan_tasks(int threads, BoundRnn* bound) const;
  void plan_scratch(int threads, BoundRnn* bound) const;

  Status run(const BoundRnn& bound, const RunArgs& args) const;
  Status check_lengths(const BoundRnn& bound, const RunArgs& args) const;
  void sum_biases(const BoundRnn& bound, const RunArgs& args) const;
  void run_task(Task& task) const;
  void start_state(Task& task) const;
  const float* gather_rows(Task& task, int64_t first, size_t steps) const;
  void project(Task& task, const float* rows, size_t steps) const;
  void write_step(Task& task, int64_t step) const;
  void finish_task(Task& task) const;
  bool reverse(size_t direction) const { return reverse_ || direction == 1; }
  // Rows of the outputs, hidden floats each.
  size_t output_row(const BoundRnn& bound, size_t direction, size_t entry, size_t time) const {
    return batch_first_ ? (entry * bound.steps + time) * bound.directions + direction
                        : (time * bound.directions + direction) * bound.batch + entry;
  }
  size_t state_row(const BoundRnn& bound, size_t direction, size_t entry) const {
    return batch_first_ ? entry * bound.directions + direction : direction * bound.batch + entry;
  }
  bool rows_lie_ready(const BoundRnn& bound, size_t direction) const {
    return !batch_first_ && !reverse(direction) && bound.rows_per_task == bound.batch;
  }

  std::string name_;
  RnnKind kind_ = RnnKind::kRnn;
  bool has_[kOperands] = {};
  bool reverse_ = false, batch_first_ = false;
  int64_t hidden_ = 0, input_ = 0;  // 0: not said by an attribute
  size_t directions_ = 1, outputs_ = 0;
  RnnEquations equations_[2] = {};
  RnnMatrix w_, r_;
};

}  // namespace lepton
