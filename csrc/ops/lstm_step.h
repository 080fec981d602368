// lstm_step: a time step of an LSTM with 8-bit recurrent weights, from the quantised states to the
// new ones: the recurrent product, its scales and the projected input, and the cell, without a way
// through memory between them.
//
//   sum[i][g][u] = sum over p of (rows[i][p] − zero_points[i]) · rhs[p][g][u]
//   gate[i][g][u] = float(sum[i][g][u]) · scale[g][u] · row_scale[i] + projected[i][g][u]
//   c[i][u], h[i][u] = lstm_cell.h of gates i, o, f, g of unit u       i < m, u < units, p < k
//
// The bits are those of gemm_s8 (gemm_s8.h), of the epilogue of kind kF32 (epilogue.h) with
// projected as its residual, and of the lstm_cell kernel of the same instruction set.
//
// rows: as lhs in gemm_s8.h. packed: panels of a gemm_s8 kernel of the same isa, form and nr, which
// has its columns interleaved: a panel holds the gates i, o, f and g of nr / 4 units, one after
// another, behind the sums of its nr columns. Panels [first, last) are computed, of hidden · 4 /
// nr. scale: [4][hidden]; projected: [m][4][hidden]; c and h: [m][hidden]. hidden is a multiple of
// nr / 4. Operands overlap neither c nor h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct LstmStepParams {
  size_t m, k, hidden;
  const uint8_t* rows;
  size_t row_stride;
  const int32_t* zero_points;
  const float* row_scale;
  const std::byte* packed;
  size_t panel_stride;
  size_t first, last;
  const float* scale;
  const float* projected;
  float* c;
  float* h;
};
using LstmStepKernel = void (*)(const LstmStepParams&);

#define LEPTON_LSTM_STEP(name, isa, form, nr) void name(const LstmStepParams&);
#include "ops/lstm_step_kernels.inc"
#undef LEPTON_LSTM_STEP

}  // namespace lepton
