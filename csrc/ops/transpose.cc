// Transpose, and the two rearrangements that are transposes of a finer shape: DepthToSpace and
// SpaceToDepth.
#include "ops/movement.h"

namespace lepton {
namespace {

class TransposeOp final : public Op {
 public:
  TransposeOp(size_t element_size, Isa isa, std::vector<int64_t> perm)
      : element_size_(element_size), isa_(isa), perm_(std::move(perm)) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    std::vector<int> perm;
    LEPTON_RETURN_IF_ERROR(resolve(from.rank, &perm));
    Shape to;
    for (int axis : perm) to.push_back(from[axis]);
    if (moves_nothing(from, perm)) return context.set_alias(0, 0, to);
    const Strides src = strides_of(from), dst = strides_of(to);
    StridedCopy copy(element_size_, isa_);
    for (int i = 0; i < to.rank; ++i) copy.add_dim(to[i], src[perm[i]], dst[i]);
    copy.prepare();
    return bind_copy(context, 0, 0, to, copy);
  }

 private:
  Status resolve(int rank, std::vector<int>* perm) const {
    if (perm_.empty()) {
      for (int i = rank - 1; i >= 0; --i) perm->push_back(i);
      return {};
    }
    if (perm_.size() != static_cast<size_t>(rank))
      return invalid_model("Transpose: perm has " + std::to_string(perm_.size()) +
                           " axes, the input " + std::to_string(rank));
    return normalize_axes(perm_, rank, perm);
  }

  // True when the axes longer than 1 keep their order.
  static bool moves_nothing(const Shape& from, const std::vector<int>& perm) {
    int last = -1;
    for (int axis : perm) {
      if (from[axis] == 1) continue;
      if (axis < last) return false;
      last = axis;
    }
    return true;
  }

  size_t element_size_;
  Isa isa_;
  std::vector<int64_t> perm_;  // empty: reverse
};

// A reshape to six dimensions, a transpose and a reshape to four, as one strided copy.
class SpaceDepthOp final : public Op {
 public:
  enum Kind { kDepthToSpaceDcr, kDepthToSpaceCrd, kSpaceToDepthDcr, kSpaceToDepthCrd };
  SpaceDepthOp(Kind kind, int64_t block, size_t element_size, Isa isa)
      : kind_(kind), block_(block), element_size_(element_size), isa_(isa) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    if (from.rank != 4) return invalid_input("DepthToSpace and SpaceToDepth need rank 4");
    const bool to_depth = kind_ == kSpaceToDepthDcr || kind_ == kSpaceToDepthCrd;
    return to_depth ? bind_space_to_depth(context, from) : bind_depth_to_space(context, from);
  }

 private:
  Status bind_depth_to_space(BindContext& context, const Shape& from) const {
    const int64_t n = from[0], h = from[2], w = from[3], b = block_;
    if (from[1] % (b * b) != 0)
      return invalid_input("DepthToSpace: channels are no multiple of blocksize²");
    const int64_t c = from[1] / (b * b);
    Shape to{n, c, h, w};
    if (!multiply_within(b, &to[2]) || !multiply_within(b, &to[3])) return check_shape(Shape{-1});
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    const bool dcr = kind_ == kDepthToSpaceDcr;
    const Strides src = strides_of(from), dst = strides_of(to);
    StridedCopy copy(element_size_, isa_);
    copy.add_dim(n, src[0], dst[0]);
    copy.add_dim(c, (dcr ? 1 : b * b) * src[1], dst[1]);
    copy.add_dim(b, (dcr ? b * c : b) * src[1], dst[2]);
    copy.add_dim(b, (dcr ? c : 1) * src[1], dst[3]);
    copy.add_dim(h, src[2], b * dst[2]);
    copy.add_dim(w, src[3], b * dst[3]);
    copy.prepare();
    return bind_copy(context, 0, 0, to, copy);
  }

  Status bind_space_to_depth(BindContext& context, const Shape& from) const {
    const int64_t n = from[0], c = from[1], b = block_;
    if (from[2] % b != 0 || from[3] % b != 0)
      return invalid_input("SpaceToDepth: height or width is no multiple of blocksize");
    Shape to{n, c, from[2] / b, from[3] / b};
    if (!multiply_within(b * b, &to[1])) return check_shape(Shape{-1});
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    const Strides src = strides_of(from), dst = strides_of(to);
    StridedCopy copy(element_size_, isa_);
    copy.add_dim(n, src[0], dst[0]);
    const bool dcr = kind_ == kSpaceToDepthDcr;
    copy.add_dim(b, src[2], (dcr ? b * c : b) * dst[1]);
    copy.add_dim(b, src[3], (dcr ? c : 1) * dst[1]);
    copy.add_dim(c, src[1], (dcr ? 1 : b * b) * dst[1]);
    copy.add_dim(to[2], b * src[2], dst[2]);
    copy.add_dim(to[3], b * src[3], dst[3]);
    copy.prepare();
    return bind_copy(context, 0, 0, to, copy);
  }

  Kind kind_;
  int64_t block_;
  size_t element_size_;
  Isa isa_;
};

// dcr, crd: the kind in either order of depth, column and row.
Status make_space_depth(const StepDesc& desc, SpaceDepthOp::Kind dcr, SpaceDepthOp::Kind crd,
                        std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 1));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  const int64_t block = desc.attrs->i("blocksize");
  if (block < 1 || block > (1 << 15)) return invalid_model(std::string(desc.op) + ": blocksize");
  const std::string_view mode = desc.attrs->s("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") return invalid_model(std::string(desc.op) + ": mode");
  *op = std::make_unique<SpaceDepthOp>(mode == "DCR" ? dcr : crd, block,
                                       size_of(desc.inputs[0].dtype), desc.isa);
  return {};
}

}  // namespace

Status make_transpose(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 1));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  const Attrs::Ints list = desc.attrs->ints("perm");
  std::vector<int64_t> perm(list.data, list.data + list.size);
  std::vector<int> checked;
  LEPTON_RETURN_IF_ERROR(normalize_axes(perm, static_cast<int>(list.size), &checked));
  *op = std::make_unique<TransposeOp>(size_of(desc.inputs[0].dtype), desc.isa, std::move(perm));
  return {};
}

Status make_depth_to_space(const StepDesc& desc, std::unique_ptr<Op>* op) {
  return make_space_depth(desc, SpaceDepthOp::kDepthToSpaceDcr, SpaceDepthOp::kDepthToSpaceCrd, op);
}

Status make_space_to_depth(const StepDesc& desc, std::unique_ptr<Op>* op) {
  return make_space_depth(desc, SpaceDepthOp::kSpaceToDepthDcr, SpaceDepthOp::kSpaceToDepthCrd, op);
}

}  // namespace lepton
