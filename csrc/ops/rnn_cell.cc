// The recurrent product of all rows first, with the projected input as its residual; then the gates
// row by row, while they are in L1, through the elementwise kernels.
#include "ops/rnn_cell.h"

#include "ops/kernel_list.h"

namespace lepton {
namespace {

struct LstmCellInfo {
  std::string_view name;
  Isa isa;
  LstmCellKernel run;
};
#define LEPTON_LSTM_CELL(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
const LstmCellInfo kLstmCells[] = {
#include "ops/lstm_cell_kernels.inc"
};
#undef LEPTON_LSTM_CELL
constexpr KernelList<LstmCellInfo> kLstmCellList = {kLstmCells,
                                                    sizeof kLstmCells / sizeof kLstmCells[0]};

void activate(const RnnEquations& equations, int function, float* x, size_t n) {
  if (equations.clip > 0.f) equations.arithmetic.clip(equations.clip, x, n);
  equations.functions[function].apply(x, n);
}

// h = f(X W + H R + b)
void rnn_step(const RnnEquations& equations, const RnnStep& step, const RnnRecurrence& recurrence) {
  const size_t n = step.hidden;
  recurrence.multiply(0, step.m, step.h, nullptr, step.projected, step.gates);
  for (size_t i = 0; i < step.m; ++i) {
    if (!step.runs(i)) continue;
    float *const gate = step.gates + i * n, *const h = step.h + i * n;
    activate(equations, 0, gate, n);
    for (size_t j = 0; j < n; ++j) h[j] = gate[j];
  }
}

// Gates i, o, f, c~:  c = f · c + i · c~,  h = o · act(c). Peepholes add P · c to i and f before c
// changes, and to o after.
void lstm_row(const RnnEquations& equations, const float* peepholes, size_t n, float* gates,
              float* c, float* h) {
  const RnnArithmetic& math = equations.arithmetic;
  float *const in = gates, *const out = gates + n, *const forget = gates + 2 * n,
               *const cell = gates + 3 * n;
  if (peepholes == nullptr) {
    activate(equations, 0, gates, 3 * n);
  } else {
    // h is free until the last line
    math.mul(peepholes, c, h, n);
    math.add(in, h, in, n);
    math.mul(peepholes + 2 * n, c, h, n);
    math.add(forget, h, forget, n);
    activate(equations, 0, in, n);
    activate(equations, 0, forget, n);
  }
  activate(equations, 1, cell, n);
  if (equations.input_forget) {
    for (size_t j = 0; j < n; ++j) forget[j] = in[j];
    math.subtract_from(1.f, forget, n);
  }
  math.mul(forget, c, c, n);
  math.mul(in, cell, cell, n);
  math.add(c, cell, c, n);
  if (peepholes != nullptr) {
    math.mul(peepholes + n, c, h, n);
    math.add(out, h, out, n);
    activate(equations, 0, out, n);
  }
  for (size_t j = 0; j < n; ++j) cell[j] = c[j];
  equations.functions[2].apply(cell, n);
  math.mul(out, cell, h, n);
}

// Rows that run, as many together as follow one another.
void fused_lstm_step(const RnnStep& step, const RnnRecurrence& recurrence) {
  const size_t n = step.hidden;
  for (size_t first = 0, last; first < step.m; first = last) {
    for (last = first; last < step.m && step.runs(last); ++last) {
    }
    if (last == first)
      ++last;
    else
      recurrence.lstm_step(last - first, step.projected + first * 4 * n, step.c + first * n,
                           step.h + first * n);
  }
}

void lstm_step(const RnnEquations& equations, const RnnStep& step,
               const RnnRecurrence& recurrence) {
  if (recurrence.interleaved()) return fused_lstm_step(step, recurrence);
  const size_t n = step.hidden;
  recurrence.multiply(0, step.m, step.h, nullptr, step.projected, step.gates);
  for (size_t i = 0; i < step.m; ++i) {
    if (!step.runs(i)) continue;
    float *const gates = step.gates + i * 4 * n, *const c = step.c + i * n;
    if (equations.cell != nullptr && step.peepholes == nullptr)
      equations.cell(n, gates, c, step.h + i * n);
    else
      lstm_row(equations, step.peepholes, n, gates, c, step.h + i * n);
  }
}

// h = (1 − z) · h~ + z · h = h~ + z · (h − h~)
void blend(const RnnArithmetic& math, const float* z, const float* candidate, float* h, size_t n) {
  math.sub(h, candidate, h, n);
  math.mul(h, z, h, n);
  math.add(candidate, h, h, n);
}

// Gates z, r, h~ with h~ = g(X W + (r · H) R + b): two products, the second after r is known.
void gru_step(const RnnEquations& equations, const RnnStep& step, const RnnRecurrence& recurrence) {
  const RnnArithmetic& math = equations.arithmetic;
  const size_t n = step.hidden;
  recurrence.multiply(0, step.m, step.h, nullptr, step.projected, step.gates);
  for (size_t i = 0; i < step.m; ++i) {
    float* const gates = step.gates + i * 3 * n;
    activate(equations, 0, gates, 2 * n);
    math.mul(gates + n, step.h + i * n, step.reset + i * n, n);
  }
  recurrence.multiply(1, step.m, step.reset, nullptr, step.projected + 2 * n, step.gates + 2 * n);
  for (size_t i = 0; i < step.m; ++i) {
    if (!step.runs(i)) continue;
    float* const gates = step.gates + i * 3 * n;
    activate(equations, 1, gates + 2 * n, n);
    blend(math, gates, gates + 2 * n, step.h + i * n, n);
  }
}

// The same with h~ = g(X W + r · (H R + b_r) + b_w).
void gru_linear_before_reset_step(const RnnEquations& equations, const RnnStep& step,
                                  const RnnRecurrence& recurrence) {
  const RnnArithmetic& math = equations.arithmetic;
  const size_t n = step.hidden;
  recurrence.multiply(0, step.m, step.h, step.reset_bias, nullptr, step.gates);
  for (size_t i = 0; i < step.m; ++i) {
    if (!step.runs(i)) continue;
    float* const gates = step.gates + i * 3 * n;
    const float* const projected = step.projected + i * 3 * n;
    math.add(gates, projected, gates, 2 * n);
    activate(equations, 0, gates, 2 * n);
    math.mul(gates + 2 * n, gates + n, gates + 2 * n, n);
    math.add(gates + 2 * n, projected + 2 * n, gates + 2 * n, n);
    activate(equations, 1, gates + 2 * n, n);
    blend(math, gates, gates + 2 * n, step.h + i * n, n);
  }
}

}  // namespace

LstmCellKernel find_lstm_cell(const RnnEquations& equations, Isa isa) {
  const RnnActivation sigmoid = RnnActivation::plain(MicroOp::kSigmoid, isa);
  const RnnActivation tanh = RnnActivation::plain(MicroOp::kTanh, isa);
  const RnnActivation* const own = equations.functions;
  const bool usual = own[0] == sigmoid && own[1] == tanh && own[2] == tanh;
  const bool is_lstm = equations.kind == RnnKind::kLstm;
  if (!is_lstm || !usual || equations.clip > 0.f || equations.input_forget) return nullptr;
  return kLstmCellList.best(isa)->run;
}

Isa lstm_cell_isa(Isa max) { return kLstmCellList.select(max)->isa; }

void run_rnn_step(const RnnEquations& equations, const RnnStep& step,
                  const RnnRecurrence& recurrence) {
  if (equations.kind == RnnKind::kRnn) return rnn_step(equations, step, recurrence);
  if (equations.kind == RnnKind::kLstm) return lstm_step(equations, step, recurrence);
  if (equations.linear_before_reset)
    return gru_linear_before_reset_step(equations, step, recurrence);
  gru_step(equations, step, recurrence);
}

}  // namespace lepton
