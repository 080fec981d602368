// Attention in plain C++: the definition beside the vector kernels.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ops/attention_kernels.h"

namespace lepton {
namespace {

bool is_allowed(const AttentionRow& row, size_t j) {
  return j >= row.first && j < row.last && (row.mask == nullptr || row.mask[j] != 0);
}

float score(const AttentionRow& row, size_t j) {
  const float masked = -HUGE_VALF;
  if (!is_allowed(row, j)) return masked;
  float t = row.scores[j / row.width * row.panel_stride + j % row.width] * row.scale;
  if (row.softcap != 0) t = row.softcap * std::tanh(t / row.softcap);
  if (row.bias != nullptr) t = row.bias[j] == masked ? masked : t + row.bias[j];
  return t;
}

float softmax_row(const AttentionRow& row) {
  const size_t padded = (row.n + row.width - 1) / row.width * row.width;
  float max = *row.max;
  for (size_t j = 0; j < row.n; ++j) {
    row.p[j] = score(row, j);
    max = row.p[j] > max || row.p[j] != row.p[j] ? row.p[j] : max;
  }
  for (size_t j = row.n; j < padded; ++j) row.p[j] = 0;
  if (max == -HUGE_VALF) {
    for (size_t j = 0; j < row.n; ++j) row.p[j] = 0;
    return 1;
  }
  float sum = 0;
  for (size_t j = 0; j < row.n; ++j) {
    row.p[j] = std::exp(row.p[j] - max);
    sum += row.p[j];
  }
  const float correction = *row.max == -HUGE_VALF ? 1 : std::exp(*row.max - max);
  *row.sum = *row.sum * correction + sum;
  *row.max = max;
  return correction;
}

void pack_keys(const float* keys, size_t stride, size_t n, size_t depth, size_t width,
               float* packed) {
  for (size_t j = 0; j < n; j += width)
    for (size_t d = 0; d < depth; ++d)
      for (size_t i = 0; i < width; ++i) *packed++ = j + i < n ? keys[(j + i) * stride + d] : 0;
}

void pack_values(const float* values, size_t stride, size_t n, size_t depth, size_t width,
                 float* packed) {
  for (size_t c = 0; c < depth; c += width)
    for (size_t j = 0; j < n; ++j)
      for (size_t i = 0; i < width; ++i) *packed++ = c + i < depth ? values[j * stride + c + i] : 0;
}

void dot(const float* q, const float* keys, size_t stride, size_t n, size_t depth, float* scores) {
  for (size_t j = 0; j < n; ++j) {
    float sum = 0;
    for (size_t d = 0; d < depth; ++d) sum += q[d] * keys[j * stride + d];
    scores[j] = sum;
  }
}

void accumulate(const float* p, const float* values, size_t stride, size_t n, size_t depth,
                float correction, float* y) {
  for (size_t c = 0; c < depth; ++c) y[c] *= correction;
  for (size_t j = 0; j < n; ++j)
    for (size_t c = 0; c < depth; ++c) y[c] += p[j] * values[j * stride + c];
}

void scale(const float* x, size_t x_panel, float factor, size_t n, size_t width, float* y,
           size_t y_panel) {
  for (size_t c = 0; c < n; c += width, x += x_panel, y += y_panel)
    for (size_t i = 0; i < width && c + i < n; ++i) y[i] = x[i] * factor;
}

}  // namespace

AttentionKernels attention_f32_scalar() {
  return {softmax_row, pack_keys, pack_values, dot, accumulate, scale};
}

}  // namespace lepton
