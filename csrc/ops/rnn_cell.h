// One time step of a recurrent layer, for a few rows (batch entries) of one direction.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/lstm_cell.h"
#include "ops/rnn_activation.h"
#include "ops/rnn_matrix.h"

namespace lepton {

enum class RnnKind : uint8_t { kRnn, kGru, kLstm };

// Gates per hidden unit, and activation functions per direction.
constexpr size_t gates_of(RnnKind kind) {
  return kind == RnnKind::kLstm ? 4 : kind == RnnKind::kGru ? 3 : 1;
}
constexpr int functions_of(RnnKind kind) {
  return kind == RnnKind::kLstm ? 3 : kind == RnnKind::kGru ? 2 : 1;
}
constexpr int kMaxFunctions = 3;

// The equations of one direction, as ONNX gives them.
struct RnnEquations {
  RnnKind kind;
  bool linear_before_reset = false;  // GRU
  bool input_forget = false;         // LSTM
  float clip = 0.f;                  // 0: none
  RnnActivation functions[kMaxFunctions];
  RnnArithmetic arithmetic;
  LstmCellKernel cell = nullptr;  // where one does all of an LSTM's step but peepholes
};

// The kernel for these equations; null where they are not those of lstm_cell.h.
LstmCellKernel find_lstm_cell(const RnnEquations& equations, Isa isa);
// The instruction set of the kernel preferred for a target capped at `max`.
Isa lstm_cell_isa(Isa max);

// Operands of one step. Rows are dense: hidden or gates · hidden floats.
struct RnnStep {
  size_t m, hidden;
  const float* projected;   // [m][gates · hidden]: X W + biases
  const float* reset_bias;  // GRU with linear_before_reset: [3 · hidden], recurrent bias of h
  const float* peepholes;   // LSTM: [3 · hidden] or null
  const int32_t* lengths;   // [m] or null: rows with lengths[i] <= step keep their state
  int64_t step;
  float* h;      // [m][hidden], updated
  float* c;      // LSTM
  float* gates;  // scratch [m][gates · hidden]
  float* reset;  // scratch [m][hidden], GRU
  bool runs(size_t i) const { return lengths == nullptr || step < lengths[i]; }
};

// Multiplies [m][hidden] by a piece of R: dst = rows · piece + bias + residual, where rows of dst
// and residual are gates · hidden floats apart.
class RnnRecurrence {
 public:
  RnnRecurrence(const RnnMatrix& matrix, const BoundRnnMatrix& bound, const RnnMatrixRun& run,
                size_t direction, std::byte* scratch, Parallel parallel)
      : matrix_(matrix),
        bound_(bound),
        run_(run),
        direction_(direction),
        scratch_(scratch),
        parallel_(parallel) {}

  bool interleaved() const { return matrix_.is_interleaved(); }
  // All of an LSTM's step for m rows: of quantised h [m][hidden] and projected, the new c and h.
  void lstm_step(size_t m, const float* projected, float* c, float* h) const {
    matrix_.lstm_step(bound_, run_, {direction_, m, projected, c, h, scratch_}, parallel_);
  }

  void multiply(int piece, size_t m, const float* rows, const float* bias, const float* residual,
                float* dst) const {
    const RnnMatrixShape& shape = bound_.shape;
    matrix_.multiply(bound_, run_,
                     {direction_, piece, m, rows, shape.k, bias, residual, shape.columns, dst,
                      shape.columns, scratch_},
                     parallel_);
  }

 private:
  const RnnMatrix& matrix_;
  const BoundRnnMatrix& bound_;
  const RnnMatrixRun& run_;
  size_t direction_;
  std::byte* scratch_;
  Parallel parallel_;
};

void run_rnn_step(const RnnEquations& equations, const RnnStep& step,
                  const RnnRecurrence& recurrence);

}  // namespace lepton
