// Shapes, strides and key ranges of attention.
#include <algorithm>
#include <string>

#include "ops/attention.h"

namespace lepton {
namespace {

Status read_layout(const StepDesc& step, const char* name, AttentionLayout* layout) {
  const std::string_view text = step.attrs->s(name, "BHSD");
  if (text == "BHSD") {
    *layout = AttentionLayout::kBHSD;
  } else if (text == "BSHD") {
    *layout = AttentionLayout::kBSHD;
  } else if (text == "SBHD") {
    *layout = AttentionLayout::kSBHD;
  } else {
    return invalid_model(std::string(name) + " '" + std::string(text) + "' is no layout");
  }
  return {};
}

// One of Q, K and V by its roles.
struct Heads {
  int64_t batch, heads, rows, depth;
};

Status read_heads(const char* what, const Shape& shape, AttentionLayout layout, int64_t heads,
                  Heads* out) {
  if (shape.rank == 3) {
    if (heads <= 0 || shape[2] % heads != 0)
      return invalid_input(std::string(what) + " " + shape.str() + " does not split into " +
                           std::to_string(heads) + " heads");
    *out = {shape[0], heads, shape[1], shape[2] / heads};
    return {};
  }
  if (shape.rank != 4)
    return invalid_input(std::string(what) + " " + shape.str() + " is neither 3-D nor 4-D");
  switch (layout) {
    case AttentionLayout::kBHSD: *out = {shape[0], shape[1], shape[2], shape[3]}; break;
    case AttentionLayout::kBSHD: *out = {shape[0], shape[2], shape[1], shape[3]}; break;
    case AttentionLayout::kSBHD: *out = {shape[1], shape[2], shape[0], shape[3]}; break;
  }
  return {};
}

HeadStrides strides_of(const Heads& h, AttentionLayout layout) {
  const auto batch = static_cast<size_t>(h.batch), heads = static_cast<size_t>(h.heads);
  const auto rows = static_cast<size_t>(h.rows), depth = static_cast<size_t>(h.depth);
  switch (layout) {
    case AttentionLayout::kBHSD: return {heads * rows * depth, rows * depth, depth};
    case AttentionLayout::kBSHD: return {rows * heads * depth, depth, heads * depth};
    case AttentionLayout::kSBHD: return {heads * depth, depth, batch * heads * depth};
  }
  return {};
}

Shape shape_of(const Heads& h, AttentionLayout layout) {
  switch (layout) {
    case AttentionLayout::kBHSD: return {h.batch, h.heads, h.rows, h.depth};
    case AttentionLayout::kBSHD: return {h.batch, h.rows, h.heads, h.depth};
    case AttentionLayout::kSBHD: return {h.rows, h.batch, h.heads, h.depth};
  }
  return {};
}

Status check_past(const Shape& past, const Heads& now, const char* what, int64_t* rows) {
  if (past.rank != 4 || past[0] != now.batch || past[1] != now.heads || past[3] != now.depth)
    return invalid_input(std::string(what) + " " + past.str() +
                         " does not continue the heads of this step");
  *rows = past[2];
  return {};
}

Status read_mask(const Shape& mask, AttentionShape* shape) {
  const int64_t want[4] = {static_cast<int64_t>(shape->batch), static_cast<int64_t>(shape->q_heads),
                           static_cast<int64_t>(shape->seq_q), static_cast<int64_t>(shape->total)};
  if (mask.rank < 1 || mask.rank > 4)
    return invalid_input("mask " + mask.str() + " has no rank from 1 to 4");
  size_t* const strides[3] = {&shape->mask.batch, &shape->mask.head, &shape->mask.row};
  size_t step = static_cast<size_t>(mask[mask.rank - 1]);
  bool fits = mask[mask.rank - 1] <= want[3];
  for (int d = 2; d >= 0; --d) {
    const int at = d - (4 - mask.rank);
    const int64_t size = at < 0 ? 1 : mask[at];
    fits = fits && (size == 1 || size == want[d]);
    *strides[d] = size == 1 ? 0 : step;
    step *= static_cast<size_t>(size);
  }
  if (!fits)
    return invalid_input("mask " + mask.str() + " does not broadcast to the scores " +
                         Shape::of(want, 4).str());
  shape->mask_keys = static_cast<size_t>(mask[mask.rank - 1]);
  shape->mask_per_row = mask[mask.rank - 1] == 1 && want[3] != 1;
  return {};
}

}  // namespace

Status read_attention_attrs(const StepDesc& step, AttentionAttrs* attrs) {
  LEPTON_RETURN_IF_ERROR(read_layout(step, "q_layout", &attrs->q));
  LEPTON_RETURN_IF_ERROR(read_layout(step, "k_layout", &attrs->k));
  LEPTON_RETURN_IF_ERROR(read_layout(step, "v_layout", &attrs->v));
  LEPTON_RETURN_IF_ERROR(read_layout(step, "y_layout", &attrs->y));
  attrs->y_given = step.attrs->has("y_layout");
  attrs->q_heads = step.attrs->i("q_num_heads");
  attrs->kv_heads = step.attrs->i("kv_num_heads");
  attrs->left = step.attrs->i("left_window_size", -1);
  attrs->right = step.attrs->i("right_window_size", -1);
  attrs->causal = step.attrs->i("is_causal") != 0;
  attrs->bottom_right = step.attrs->i("bottom_right") != 0;
  return {};
}

Status attention_shape(const BindContext& context, const AttentionAttrs& attrs,
                       AttentionShape* shape) {
  const Shape& q_shape = context.input(0).shape;
  Heads q, k, v;
  LEPTON_RETURN_IF_ERROR(read_heads("Q", q_shape, attrs.q, attrs.q_heads, &q));
  LEPTON_RETURN_IF_ERROR(read_heads("K", context.input(1).shape, attrs.k, attrs.kv_heads, &k));
  LEPTON_RETURN_IF_ERROR(read_heads("V", context.input(2).shape, attrs.v, attrs.kv_heads, &v));
  if (q.batch != k.batch || q.batch != v.batch || k.heads != v.heads || k.rows != v.rows ||
      q.depth != k.depth || k.heads == 0 || q.heads % k.heads != 0)
    return invalid_input("Q " + q_shape.str() + ", K " + context.input(1).shape.str() + " and V " +
                         context.input(2).shape.str() + " do not fit together");
  const auto layout = [](const Shape& s, AttentionLayout given) {
    return s.rank == 3 ? AttentionLayout::kBSHD : given;
  };
  shape->q = strides_of(q, layout(q_shape, attrs.q));
  shape->k = strides_of(k, layout(context.input(1).shape, attrs.k));
  shape->v = strides_of(v, layout(context.input(2).shape, attrs.v));
  Heads y = {q.batch, q.heads, q.rows, v.depth};
  const AttentionLayout y_layout = attrs.y_given ? attrs.y : layout(q_shape, attrs.q);
  shape->y = strides_of(y, y_layout);
  shape->output = shape_of(y, y_layout);
  if (q_shape.rank == 3 && !attrs.y_given) shape->output = {q.batch, q.rows, q.heads * v.depth};
  int64_t past = 0, past_v = 0;
  if (context.num_inputs() > 4 && context.input(4).present) {
    LEPTON_RETURN_IF_ERROR(check_past(context.input(4).shape, k, "past_key", &past));
    LEPTON_RETURN_IF_ERROR(check_past(context.input(5).shape, v, "past_value", &past_v));
    if (past != past_v) return invalid_input("past_key and past_value differ in length");
  }
  const int64_t total = past + k.rows;
  shape->present_key = {k.batch, k.heads, total, k.depth};
  shape->present_value = {v.batch, v.heads, total, v.depth};
  shape->scores = {q.batch, q.heads, q.rows, total};
  for (const Shape* s :
       {&shape->output, &shape->present_key, &shape->present_value, &shape->scores})
    if (!is_valid(*s)) return invalid_input("attention of impossible size " + s->str());
  shape->batch = static_cast<size_t>(q.batch);
  shape->q_heads = static_cast<size_t>(q.heads);
  shape->kv_heads = static_cast<size_t>(k.heads);
  shape->group = shape->q_heads / shape->kv_heads;
  shape->seq_q = static_cast<size_t>(q.rows);
  shape->seq_k = static_cast<size_t>(k.rows);
  shape->past = static_cast<size_t>(past);
  shape->total = static_cast<size_t>(total);
  shape->depth = static_cast<size_t>(q.depth);
  shape->depth_v = static_cast<size_t>(v.depth);
  shape->offset = attrs.bottom_right ? total - q.rows : past;
  if (context.num_inputs() > 6 && context.input(6).present) {
    const Shape& nonpad = context.input(6).shape;
    if (nonpad.rank != 1 || nonpad[0] != q.batch)
      return invalid_input("nonpad_kv_seqlen " + nonpad.str() + " has not one entry per batch");
  }
  if (context.num_inputs() > 3 && context.input(3).present)
    return read_mask(context.input(3).shape, shape);
  return {};
}

KeyRange attention_keys(const AttentionAttrs& attrs, const AttentionShape& shape,
                        const int64_t* nonpad, size_t batch, size_t row) {
  const auto total = static_cast<int64_t>(shape.total);
  int64_t first = 0, last = total, offset = shape.offset;
  if (shape.mask_keys != 0 && !shape.mask_per_row)
    last = std::min(last, static_cast<int64_t>(shape.mask_keys));
  if (nonpad != nullptr) {
    const int64_t count = std::clamp<int64_t>(nonpad[batch], 0, total);
    last = std::min(last, count);
    if (shape.past == 0) offset = count - static_cast<int64_t>(shape.seq_q);
  }
  const int64_t position = offset + static_cast<int64_t>(row);
  if (attrs.causal) last = std::min(last, position + 1);
  if (attrs.right >= 0 && attrs.right < total) last = std::min(last, position + attrs.right + 1);
  if (attrs.left >= 0 && attrs.left < total) first = std::max(first, position - attrs.left);
  last = std::max<int64_t>(last, 0);
  first = std::min(first, last);
  return {static_cast<size_t>(first), static_cast<size_t>(last)};
}

}  // namespace lepton
