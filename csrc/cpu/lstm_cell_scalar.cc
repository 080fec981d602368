// One unit at a time.
#include "ops/lstm_cell.h"

#include <cmath>

namespace lepton {
namespace {

float sigmoid(float x) { return 1.f / (1.f + std::exp(-x)); }

}  // namespace

void lstm_cell_f32_scalar(size_t n, const float* gates, float* c, float* h) {
  for (size_t j = 0; j < n; ++j) {
    const float in = sigmoid(gates[j]), out = sigmoid(gates[n + j]);
    const float forget = sigmoid(gates[2 * n + j]), cell = std::tanh(gates[3 * n + j]);
    c[j] = forget * c[j] + in * cell;
    h[j] = out * std::tanh(c[j]);
  }
}

}  // namespace lepton
