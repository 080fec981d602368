// The scores of attention as an output of their own: for looking into a model, row by row and
// without regard to speed.
#pragma once

#include "ops/attention.h"

namespace lepton {

struct AttentionScores {
  const AttentionAttrs& attrs;
  const AttentionShape& shape;
  const AttentionKernels& kernels;
  const float* k;
  HeadStrides k_strides;
  float scale, softcap;
  int64_t mode;  // 0 product, 1 after softcap, 2 after the mask, 3 after softmax
  DType mask;    // kUndefined: none
  const int64_t* nonpad;
};

// Writes output 3, [batch, q_heads, seq_q, total].
void write_attention_scores(const AttentionScores& scores, const RunArgs& args);

}  // namespace lepton
