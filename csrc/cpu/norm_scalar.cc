// The definitions: a row is read once per pass; rows of layer normalisation stay in L1 meanwhile.
#include <cstddef>
#include <cstdint>

#include "ops/norm.h"

namespace lepton {
namespace {

constexpr size_t kBlock = 512;

template <typename F>
double sum_of(const float* x, size_t n, F f) {
  double total = 0;
  for (size_t first = 0; first < n; first += kBlock) {
    const size_t last = n - first < kBlock ? n : first + kBlock;
    float partial[4] = {};  // four chains hide the latency of addition
    size_t i = first;
    for (; i + 4 <= last; i += 4)
      for (size_t j = 0; j < 4; ++j) partial[j] += f(x[i + j]);
    for (; i < last; ++i) partial[0] += f(x[i]);
    total += (partial[0] + partial[1]) + (partial[2] + partial[3]);
  }
  return total;
}

double sum(const float* x, size_t n) {
  return sum_of(x, n, [](float v) { return v; });
}

double sum_square(const float* x, size_t n, float mean) {
  return sum_of(x, n, [mean](float v) { return (v - mean) * (v - mean); });
}

void affine(const float* x, float* y, size_t n, float scale, float shift) {
  for (size_t i = 0; i < n; ++i) y[i] = x[i] * scale + shift;
}

void normalize(const NormalizeParams& p) {
  for (size_t i = 0; i < p.n; ++i) {
    const float v = (p.x[i] - p.mean) * p.inverse * p.gamma[i];
    p.y[i] = p.beta != nullptr ? v + p.beta[i] : v;
  }
}

}  // namespace

NormKernels norm_f32_scalar() { return {sum, sum_square, affine, normalize}; }

}  // namespace lepton
