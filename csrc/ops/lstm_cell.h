// lstm_cell: the new state of one row of an LSTM whose activations are those ONNX gives by default.
//
//   c[j] = sigmoid(f[j]) · c[j] + sigmoid(i[j]) · tanh(g[j])
//   h[j] = sigmoid(o[j]) · tanh(c[j])                          j < n
//
// gates: i, o, f and g, n floats each, one after another. h and c overlap nothing else. No
// alignment is asked for; exactly these elements are read and written. NaN passes through. Kernels
// may differ between ISAs within what elementwise.h allows Sigmoid and Tanh.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

using LstmCellKernel = void (*)(size_t n, const float* gates, float* c, float* h);

#define LEPTON_LSTM_CELL(name, isa) void name(size_t n, const float* gates, float* c, float* h);
#include "ops/lstm_cell_kernels.inc"
#undef LEPTON_LSTM_CELL

}  // namespace lepton
