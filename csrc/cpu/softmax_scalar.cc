// Three passes: maximum, exponentials with their sum, scale. The exponentials are kept in y.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ops/softmax.h"

namespace lepton {
namespace {

void columns(const float* x, float* y, size_t n, size_t stride, size_t width, bool log) {
  float max[kSoftmaxWidth], sum[kSoftmaxWidth];
  for (size_t j = 0; j < width; ++j) {
    max[j] = x[j];
    sum[j] = 0;
  }
  for (size_t i = 1; i < n; ++i)
    for (size_t j = 0; j < width; ++j) {
      const float v = x[i * stride + j];
      max[j] = v > max[j] || v != v ? v : max[j];
    }
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < width; ++j) {
      const float e = std::exp(x[i * stride + j] - max[j]);
      if (!log) y[i * stride + j] = e;
      sum[j] += e;
    }
  for (size_t j = 0; j < width; ++j) sum[j] = log ? std::log(sum[j]) : 1 / sum[j];
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < width; ++j) {
      const size_t at = i * stride + j;
      y[at] = log ? x[at] - max[j] - sum[j] : y[at] * sum[j];
    }
}

void row(const float* x, float* y, size_t n, bool log) { columns(x, y, n, 1, 1, log); }

}  // namespace

SoftmaxKernels softmax_f32_scalar() { return {row, columns}; }

}  // namespace lepton
