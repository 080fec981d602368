#include "ops/attention_scores.h"

#include <algorithm>
#include <cmath>

namespace lepton {
namespace {

// What the masks add to key j of a row.
float bias_at(const AttentionScores& a, const RunArgs& args, size_t mask_row, KeyRange keys,
              size_t j) {
  if (j < keys.first || j >= keys.last) return -HUGE_VALF;
  if (a.mask == DType::kUndefined) return 0.f;
  const size_t at = mask_row + (a.shape.mask_per_row ? 0 : j);
  if (a.mask == DType::kBool) return args.input<uint8_t>(3)[at] != 0 ? 0.f : -HUGE_VALF;
  return args.input<float>(3)[at];
}

// Softmax in place; zeros when no key is allowed.
void softmax_scores(float* row, size_t n, float largest_bias) {
  const float max = *std::max_element(row, row + n);
  if (largest_bias == -HUGE_VALF) {
    std::fill_n(row, n, 0.f);
    return;
  }
  float sum = 0;
  for (size_t j = 0; j < n; ++j) sum += row[j] = std::exp(row[j] - max);
  for (size_t j = 0; j < n; ++j) row[j] /= sum;
}

void write_row(const AttentionScores& a, const RunArgs& args, size_t index) {
  const AttentionShape& s = a.shape;
  const size_t at = index % s.seq_q, head = index / s.seq_q % s.q_heads;
  const size_t batch = index / s.seq_q / s.q_heads;
  const float* const q = args.input<float>(0) + batch * s.q.batch + head * s.q.head + at * s.q.row;
  const float* const k = a.k + batch * a.k_strides.batch + head / s.group * a.k_strides.head;
  float* const row = args.output<float>(3) + index * s.total;
  a.kernels.dot(q, k, a.k_strides.row, s.total, s.depth, row);
  a.kernels.scale(row, s.total, a.scale, s.total, s.total, row, s.total);
  if (a.mode >= 1 && a.softcap != 0)
    for (size_t j = 0; j < s.total; ++j) row[j] = a.softcap * std::tanh(row[j] / a.softcap);
  if (a.mode < 2) return;
  const KeyRange keys = attention_keys(a.attrs, s, a.nonpad, batch, at);
  const size_t mask_row = batch * s.mask.batch + head * s.mask.head + at * s.mask.row;
  float largest = -HUGE_VALF;
  for (size_t j = 0; j < s.total; ++j) {
    const float bias = bias_at(a, args, mask_row, keys, j);
    largest = std::max(largest, bias);
    row[j] += bias;
  }
  if (a.mode == 3) softmax_scores(row, s.total, largest);
}

}  // namespace

void write_attention_scores(const AttentionScores& scores, const RunArgs& args) {
  const AttentionShape& s = scores.shape;
  if (s.total == 0) return;
  args.parallel.loop(static_cast<int64_t>(s.batch * s.q_heads * s.seq_q),
                     [&](int64_t i, int) { write_row(scores, args, static_cast<size_t>(i)); });
}

}  // namespace lepton
