// Attention(Q, K, V): softmax(cap(scale * Q Kᵀ) + bias) V per head, as ONNX's operator of that name
// (opsets 23 to 25), never holding more scores than a block of rows by a block of keys.
//
// "Attention" and "lepton.Attention"
//   0 Q          f32 [batch, q_heads, seq_q, depth], or [batch, seq_q, q_heads * depth] with the
//                attributes q_num_heads and kv_num_heads
//   1 K          f32 [batch, kv_heads, seq_k, depth]; q_heads is a multiple of kv_heads
//   2 V          f32 [batch, kv_heads, seq_k, depth_v]
//   3 attn_mask? bool (true: attend) or f32 (added), broadcasts to [batch, q_heads, seq_q, total];
//                keys beyond its last dimension are masked
//   4 past_key?, 5 past_value?  f32 [batch, kv_heads, past, …]; total = past + seq_k
//   6 nonpad_kv_seqlen?  int64 [batch]: keys that count
//   outputs: Y in Q's layout, present_key?, present_value?, qk_matmul_output?
//   attributes: scale (1/sqrt(depth)), softcap (0: none), is_causal, q_num_heads, kv_num_heads,
//   left_window_size, right_window_size (-1: none), qk_matmul_output_mode;
//   q_layout, k_layout, v_layout, y_layout: the order of the dimensions of a 4-D operand, "BHSD"
//   (as above), "BSHD" or "SBHD"; bottom_right: align the causal frontier to the last key instead
//   of the first (past_key does so by itself).
//
// A query row without any key to attend gives zeros.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/attention_kernels.h"
#include "ops/op.h"

namespace lepton {

enum class AttentionLayout : uint8_t { kBHSD, kBSHD, kSBHD };

// Elements from one batch, head or row to the next; depth is contiguous.
struct HeadStrides {
  size_t batch = 0, head = 0, row = 0;
};

// Attributes that bind needs.
struct AttentionAttrs {
  AttentionLayout q = AttentionLayout::kBHSD, k = q, v = q, y = q;
  bool y_given = false;  // else Y has Q's layout
  int64_t q_heads = 0, kv_heads = 0;
  int64_t left = -1, right = -1;
  bool causal = false, bottom_right = false;
};
Status read_attention_attrs(const StepDesc& step, AttentionAttrs* attrs);

// The sizes of one binding.
struct AttentionShape {
  size_t batch, q_heads, kv_heads, group;  // group = q_heads / kv_heads
  size_t seq_q, seq_k, past, total;
  size_t depth, depth_v;
  HeadStrides q, k, v, y;
  HeadStrides mask;           // strides of 0 where the mask is broadcast
  size_t mask_keys = 0;       // its last dimension
  bool mask_per_row = false;  // one value for all keys of a row
  int64_t offset = 0;         // position of query 0 among the keys, unless nonpad_kv_seqlen says it
  Shape output, present_key, present_value, scores;
};
Status attention_shape(const BindContext& context, const AttentionAttrs& attrs,
                       AttentionShape* shape);

// Keys [first, last) that query `row` of `batch` may attend, the mask's contents aside.
struct KeyRange {
  size_t first, last;
};
KeyRange attention_keys(const AttentionAttrs& attrs, const AttentionShape& shape,
                        const int64_t* nonpad, size_t batch, size_t row);

// The best float32 kernels within the cap.
AttentionKernels find_attention_kernels(Isa max);

// The factory of "Attention", for operators that fall back to it.
Status make_attention(const StepDesc& step, std::unique_ptr<Op>* op);

}  // namespace lepton
