// Kernels of attention, beside the float32 matrix multiplication that it shares with MatMul.
//
// Scores lie in panels of `width` keys, as gemm_f32 writes them: key j of a row is at
// scores[(j / width) * panel_stride + j % width]. width is a multiple of 8, of 16 from AVX-512 on;
// whole panels are readable, lanes beyond the last allowed key may hold anything.
//
//   t[j] = cap(scores[j] * scale) + bias[j]       first <= j < last and mask[j] != 0
//   t[j] = -infinity                              elsewhere, and where bias[j] is -infinity
//   cap(x) = softcap * tanh(x / softcap), or x when softcap is 0
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

// One row of scores against one block of keys: a step of the online softmax.
//   max' = max(max, t), p[j] = exp(t[j] - max'), sum' = sum * exp(max - max') + sum of p
// Keys beyond those allowed get p = 0, up to n rounded up to whole panels. Returns
// exp(max - max'), by which what was accumulated so far must be scaled, or 1 when that is nothing;
// a row with no allowed key yet keeps max = -infinity, sum = 0.
struct AttentionRow {
  size_t n;            // keys in the block
  size_t first, last;  // allowed keys, first <= last <= n
  const float* scores;
  size_t panel_stride, width;
  float scale, softcap;
  const float* bias;    // null or n values
  const uint8_t* mask;  // null or n bytes
  float* max;
  float* sum;
  float* p;
};

struct AttentionKernels {
  float (*softmax_row)(const AttentionRow& row);

  // Rows of `depth` floats, `stride` elements apart, into panels [depth][width], zeros beyond n.
  void (*pack_keys)(const float* keys, size_t stride, size_t n, size_t depth, size_t width,
                    float* packed);
  // The same rows into panels [n][width] of columns, zeros beyond depth.
  void (*pack_values)(const float* values, size_t stride, size_t n, size_t depth, size_t width,
                      float* packed);

  // Without packing, for few rows: scores[j] = q · keys[j], j < n.
  void (*dot)(const float* q, const float* keys, size_t stride, size_t n, size_t depth,
              float* scores);
  // y[c] = y[c] * correction + sum over j < n of p[j] * values[j][c], c < depth.
  void (*accumulate)(const float* p, const float* values, size_t stride, size_t n, size_t depth,
                     float correction, float* y);

  // y = x * factor for n values in panels of `width` values, x_panel and y_panel elements apart; y
  // may be x.
  void (*scale)(const float* x, size_t x_panel, float factor, size_t n, size_t width, float* y,
                size_t y_panel);
};

#define LEPTON_ATTENTION(name, isa) AttentionKernels name();
#include "ops/attention_kernels.inc"
#undef LEPTON_ATTENTION

}  // namespace lepton
