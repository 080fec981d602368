// Pad. Negative pads cut the input first. What is left (the interior) is copied into place; then
// the margins are filled axis by axis, the last first, so that the margins of an outer axis find
// the inner axes complete. A margin is a set of slabs one element thick: from the constant, or from
// the slab of the output that the mode maps it to.
#include <algorithm>

#include "ops/movement.h"

namespace lepton {
namespace {

enum class PadMode { kConstant, kReflect, kEdge, kWrap };

struct AxisPad {
  int64_t cut;     // elements of the input dropped at the front
  int64_t before;  // margin in front
  int64_t size;    // of the interior
  int64_t after;
};

// Where, relative to the interior, the element at position p outside it comes from.
int64_t source_of(PadMode mode, int64_t p, int64_t size) {
  switch (mode) {
    case PadMode::kEdge: return p < 0 ? 0 : size - 1;
    case PadMode::kWrap: {
      const int64_t m = p % size;
      return m < 0 ? m + size : m;
    }
    default: {
      if (size == 1) return 0;
      const int64_t period = 2 * (size - 1);
      int64_t m = p % period;
      if (m < 0) m += period;
      return m < size ? m : period - m;
    }
  }
}

// The margins of one axis: slab(p) of the output is a copy of slab(source_of(p)), or of the
// constant.
struct Margin {
  StridedCopy slab;
  int64_t slab_bytes;  // distance of neighbouring slabs
  int64_t before, size, after;

  void fill(PadMode mode, const void* value, char* out, const Parallel& parallel) const {
    const int64_t first = before > 0 ? -before : size;
    for (int64_t p = first; p < size + after; p = p == -1 ? size : p + 1) {
      char* to = out + (before + p) * slab_bytes;
      const void* from = mode == PadMode::kConstant
                             ? value
                             : out + (before + source_of(mode, p, size)) * slab_bytes;
      slab.run(from, to, parallel);
    }
  }
};

class PadOp final : public Op {
 public:
  PadOp(PadMode mode, bool has_value, bool has_axes, size_t element_size, Isa isa)
      : mode_(mode),
        has_value_(has_value),
        has_axes_(has_axes),
        element_size_(element_size),
        isa_(isa) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    AxisPad pads[kMaxRank];
    LEPTON_RETURN_IF_ERROR(read_pads(context, from, pads));
    if (has_value_ && context.input(2).shape.elements() != 1)
      return invalid_model("Pad: constant_value must hold one value");
    Shape to;
    for (int i = 0; i < from.rank; ++i) to.push_back(pads[i].before + pads[i].size + pads[i].after);
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    if (to == from && is_identity(from, pads)) return context.set_alias(0, 0, to);
    LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    set_closure(context, from, to, pads);
    return {};
  }

 private:
  Status read_pads(BindContext& context, const Shape& from, AxisPad* pads) const {
    std::vector<int64_t> list, axis_list;
    LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "Pad: pads", &list));
    if (has_axes_) {
      LEPTON_RETURN_IF_ERROR(require_ints(context, 3, "Pad: axes", &axis_list));
    } else {
      for (int i = 0; i < from.rank; ++i) axis_list.push_back(i);
    }
    std::vector<int> axes;
    LEPTON_RETURN_IF_ERROR(normalize_axes(axis_list, from.rank, &axes));
    if (list.size() != 2 * axes.size()) return invalid_model("Pad: two pads per axis are needed");
    for (int i = 0; i < from.rank; ++i) pads[i] = {0, 0, from[i], 0};
    for (size_t i = 0; i < axes.size(); ++i)
      LEPTON_RETURN_IF_ERROR(
          read_axis(from[axes[i]], list[i], list[i + axes.size()], &pads[axes[i]]));
    return {};
  }

  Status read_axis(int64_t dim, int64_t before, int64_t after, AxisPad* pad) const {
    if (before < -kMaxElements || before > kMaxElements || after < -kMaxElements ||
        after > kMaxElements)
      return invalid_model("Pad: a pad is too large");
    if (dim + before + after < 0)
      return invalid_input("Pad: negative pads exceed the dimension " + std::to_string(dim));
    // A cut deeper than the input reaches into the margin on the other side.
    pad->cut = std::min(std::max<int64_t>(0, -before), dim);
    const int64_t cut_after = std::max<int64_t>(0, -after);
    pad->size = std::max<int64_t>(0, dim - pad->cut - cut_after);
    pad->before = std::max<int64_t>(0, before);
    pad->after = dim + before + after - pad->before - pad->size;
    if (pad->after < 0) {
      pad->before += pad->after;
      pad->after = 0;
    }
    if (mode_ != PadMode::kConstant && pad->size == 0 && pad->before + pad->after > 0)
      return invalid_input("Pad: nothing to pad from");
    return {};
  }

  static bool is_identity(const Shape& from, const AxisPad* pads) {
    for (int i = 0; i < from.rank; ++i)
      if (pads[i].cut != 0 || pads[i].before != 0) return false;
    return true;
  }

  void set_closure(BindContext& context, const Shape& from, const Shape& to,
                   const AxisPad* pads) const {
    const Strides src = strides_of(from), dst = strides_of(to);
    StridedCopy interior(element_size_, isa_);
    int64_t src_offset = 0, dst_offset = 0;
    for (int i = 0; i < from.rank; ++i) {
      src_offset += pads[i].cut * src[i];
      dst_offset += pads[i].before * dst[i];
      interior.add_dim(pads[i].size, src[i], dst[i]);
    }
    interior.set_offsets(src_offset, dst_offset);
    interior.prepare();
    std::vector<Margin> margins = make_margins(to, dst, pads);
    context.set_run([interior, margins = std::move(margins), mode = mode_,
                     has_value = has_value_](const RunArgs& args) -> Status {
      static const uint64_t zero = 0;
      interior.run(args.in[0], args.out[0], args.parallel);
      const void* value = has_value ? args.in[2] : &zero;
      for (const Margin& m : margins) m.fill(mode, value, args.output<char>(0), args.parallel);
      return {};
    });
  }

  // A slab of axis k: the interior of the axes outside it, all of the axes inside it. Constant
  // margins move as one piece; they need no source slab each.
  std::vector<Margin> make_margins(const Shape& to, const Strides& dst, const AxisPad* pads) const {
    std::vector<Margin> margins;
    int64_t outer_offset = 0;
    for (int k = 0; k < to.rank; ++k) {
      const AxisPad& pad = pads[k];
      if (pad.before + pad.after > 0 && mode_ == PadMode::kConstant) {
        margins.push_back(constant_margin(to, dst, pads, k, outer_offset, 0, pad.before));
        margins.push_back(
            constant_margin(to, dst, pads, k, outer_offset, pad.before + pad.size, pad.after));
      } else if (pad.before + pad.after > 0) {
        Margin m{StridedCopy(element_size_, isa_), dst[k] * static_cast<int64_t>(element_size_),
                 pad.before, pad.size, pad.after};
        for (int i = 0; i < to.rank; ++i) {
          if (i == k) continue;
          m.slab.add_dim(i < k ? pads[i].size : to[i], dst[i], dst[i]);
        }
        m.slab.set_offsets(outer_offset, outer_offset);
        m.slab.prepare();
        margins.push_back(m);
      }
      outer_offset += pad.before * dst[k];
    }
    std::reverse(margins.begin(), margins.end());
    return margins;
  }

  // Expressed as a margin of one thick slab: before = 1, no interior.
  Margin constant_margin(const Shape& to, const Strides& dst, const AxisPad* pads, int k,
                         int64_t outer_offset, int64_t first, int64_t thickness) const {
    Margin m{StridedCopy(element_size_, isa_), 0, 1, 0, 0};
    for (int i = 0; i < to.rank; ++i)
      m.slab.add_dim(i < k ? pads[i].size : i == k ? thickness : to[i], 0, dst[i]);
    m.slab.set_offsets(0, outer_offset + first * dst[k]);
    m.slab.prepare();
    return m;
  }

  PadMode mode_;
  bool has_value_, has_axes_;
  size_t element_size_;
  Isa isa_;
};

}  // namespace

Status make_pad(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 2, 4));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 3));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 2, 0));
  const std::string_view name = desc.attrs->s("mode", "constant");
  PadMode mode = PadMode::kConstant;
  if (name == "reflect")
    mode = PadMode::kReflect;
  else if (name == "edge")
    mode = PadMode::kEdge;
  else if (name == "wrap")
    mode = PadMode::kWrap;
  else if (name != "constant")
    return invalid_model("Pad: mode");
  *op = std::make_unique<PadOp>(mode, desc.has_input(2), desc.has_input(3),
                                size_of(desc.inputs[0].dtype), desc.isa);
  return {};
}

}  // namespace lepton
