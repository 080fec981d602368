// Operators that give the same elements another shape (aliases, nothing moves), and the two that
// repeat them: Expand and Tile.
#include <cstring>

#include "ops/movement.h"

namespace lepton {
namespace {

class ReshapeOp final : public Op {
 public:
  explicit ReshapeOp(bool allow_zero) : allow_zero_(allow_zero) {}

  Status bind(BindContext& context) const override {
    std::vector<int64_t> target;
    LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "Reshape: shape", &target));
    Shape shape;
    LEPTON_RETURN_IF_ERROR(resolve(context.input(0).shape, target, &shape));
    return context.set_alias(0, 0, shape);
  }

 private:
  Status resolve(const Shape& from, const std::vector<int64_t>& target, Shape* shape) const {
    if (target.size() > static_cast<size_t>(kMaxRank)) return unsupported("Reshape: rank above 8");
    int inferred = -1;
    int64_t known = 1;
    for (int i = 0; i < static_cast<int>(target.size()); ++i) {
      int64_t d = target[i];
      if (d == 0 && !allow_zero_) {
        if (i >= from.rank) return invalid_model("Reshape: 0 copies a dimension that is not there");
        d = from[i];
      }
      if (d == -1) {
        if (inferred >= 0) return invalid_model("Reshape: more than one -1");
        inferred = i;
      } else if (!multiply_within(d, &known)) {
        return invalid_model("Reshape: dimension " + std::to_string(d));
      }
      shape->push_back(d);
    }
    const int64_t elements = from.elements();
    if (inferred >= 0) {
      if (known == 0 || elements % known != 0) return mismatch(from, *shape);
      (*shape)[inferred] = elements / known;
    } else if (known != elements) {
      return mismatch(from, *shape);
    }
    return {};
  }

  static Status mismatch(const Shape& from, const Shape& to) {
    return invalid_input("Reshape: " + from.str() + " does not fit " + to.str());
  }

  bool allow_zero_;
};

class FlattenOp final : public Op {
 public:
  explicit FlattenOp(int64_t axis) : axis_(axis) {}
  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    if (axis_ < -from.rank || axis_ > from.rank)
      return invalid_model("Flatten: axis " + std::to_string(axis_) + " is out of range");
    const int axis = static_cast<int>(axis_ < 0 ? axis_ + from.rank : axis_);
    const Shape shape{from.product(0, axis), from.product(axis, from.rank)};
    LEPTON_RETURN_IF_ERROR(check_shape(shape));
    return context.set_alias(0, 0, shape);
  }

 private:
  int64_t axis_;
};

class SqueezeOp final : public Op {
 public:
  explicit SqueezeOp(bool has_axes) : has_axes_(has_axes) {}
  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    unsigned dropped = 0;
    if (has_axes_) {
      std::vector<int64_t> list;
      LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "Squeeze: axes", &list));
      std::vector<int> axes;
      LEPTON_RETURN_IF_ERROR(normalize_axes(list, from.rank, &axes));
      for (int a : axes) {
        if (from[a] != 1)
          return invalid_input("Squeeze: axis " + std::to_string(a) + " of " + from.str() +
                               " is not 1");
        dropped |= 1u << a;
      }
    } else {
      for (int i = 0; i < from.rank; ++i)
        if (from[i] == 1) dropped |= 1u << i;
    }
    Shape shape;
    for (int i = 0; i < from.rank; ++i)
      if (!(dropped & (1u << i))) shape.push_back(from[i]);
    return context.set_alias(0, 0, shape);
  }

 private:
  bool has_axes_;
};

class UnsqueezeOp final : public Op {
 public:
  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    std::vector<int64_t> list;
    LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "Unsqueeze: axes", &list));
    if (list.size() > static_cast<size_t>(kMaxRank - from.rank))
      return unsupported("Unsqueeze: rank above 8");
    const int rank = from.rank + static_cast<int>(list.size());
    std::vector<int> axes;
    LEPTON_RETURN_IF_ERROR(normalize_axes(list, rank, &axes));
    unsigned inserted = 0;
    for (int a : axes) inserted |= 1u << a;
    Shape shape;
    int next = 0;
    for (int i = 0; i < rank; ++i) shape.push_back(inserted & (1u << i) ? 1 : from[next++]);
    return context.set_alias(0, 0, shape);
  }
};

class IdentityOp final : public Op {
 public:
  Status bind(BindContext& context) const override {
    return context.set_alias(0, 0, context.input(0).shape);
  }
};

// Inference: the data passes through and the mask keeps everything.
class DropoutOp final : public Op {
 public:
  explicit DropoutOp(bool has_mask) : has_mask_(has_mask) {}
  Status bind(BindContext& context) const override {
    const Shape shape = context.input(0).shape;
    LEPTON_RETURN_IF_ERROR(context.set_alias(0, 0, shape));
    if (!has_mask_) return {};
    LEPTON_RETURN_IF_ERROR(context.set_output(1, shape));
    const size_t bytes = static_cast<size_t>(shape.elements());
    context.set_run([bytes](const RunArgs& args) -> Status {
      if (bytes > 0) std::memset(args.out[1], 1, bytes);
      return {};
    });
    return {};
  }

 private:
  bool has_mask_;
};

class ExpandOp final : public Op {
 public:
  ExpandOp(size_t element_size, Isa isa) : element_size_(element_size), isa_(isa) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    std::vector<int64_t> target;
    LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "Expand: shape", &target));
    if (target.size() > static_cast<size_t>(kMaxRank)) return unsupported("Expand: rank above 8");
    const int asked = static_cast<int>(target.size());
    const int rank = asked > from.rank ? asked : from.rank;
    Shape to;
    for (int i = 0; i < rank; ++i) {
      const int a = i - (rank - from.rank), b = i - (rank - asked);
      const int64_t have = a >= 0 ? from[a] : 1, want = b >= 0 ? target[b] : 1;
      if (have != want && have != 1 && want != 1)
        return invalid_input("Expand: " + from.str() + " does not broadcast to " +
                             Shape::of(target.data(), asked).str());
      to.push_back(have == 1 ? want : have);
    }
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    if (to.elements() == from.elements()) return context.set_alias(0, 0, to);
    const Strides src = strides_of(from), dst = strides_of(to);
    StridedCopy copy(element_size_, isa_);
    for (int i = 0; i < rank; ++i) {
      const int a = i - (rank - from.rank);
      copy.add_dim(to[i], a >= 0 && from[a] != 1 ? src[a] : 0, dst[i]);
    }
    copy.prepare();
    return bind_copy(context, 0, 0, to, copy);
  }

 private:
  size_t element_size_;
  Isa isa_;
};

class TileOp final : public Op {
 public:
  TileOp(size_t element_size, Isa isa) : element_size_(element_size), isa_(isa) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    std::vector<int64_t> repeats;
    LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "Tile: repeats", &repeats));
    if (repeats.size() != static_cast<size_t>(from.rank))
      return invalid_model("Tile: one repeat per dimension is needed");
    Shape to = from;
    for (int i = 0; i < from.rank; ++i)
      if (!multiply_within(repeats[i], &to[i]))
        return invalid_model("Tile: repeat " + std::to_string(repeats[i]));
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    if (to == from) return context.set_alias(0, 0, to);
    const Strides src = strides_of(from), dst = strides_of(to);
    StridedCopy copy(element_size_, isa_);
    for (int i = 0; i < from.rank; ++i) {
      copy.add_dim(repeats[i], 0, from[i] * dst[i]);
      copy.add_dim(from[i], src[i], dst[i]);
    }
    copy.prepare();
    return bind_copy(context, 0, 0, to, copy);
  }

 private:
  size_t element_size_;
  Isa isa_;
};

Status check_alias(const StepDesc& desc, size_t required, size_t at_most) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, required, at_most));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  return {};
}

}  // namespace

Status make_reshape(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_alias(desc, 2, 2));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  *op = std::make_unique<ReshapeOp>(desc.attrs->i("allowzero") != 0);
  return {};
}

Status make_flatten(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_alias(desc, 1, 1));
  *op = std::make_unique<FlattenOp>(desc.attrs->i("axis", 1));
  return {};
}

Status make_squeeze(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_alias(desc, 1, 2));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  *op = std::make_unique<SqueezeOp>(desc.has_input(1));
  return {};
}

Status make_unsqueeze(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_alias(desc, 2, 2));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  *op = std::make_unique<UnsqueezeOp>();
  return {};
}

Status make_identity(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_alias(desc, 1, 1));
  *op = std::make_unique<IdentityOp>();
  return {};
}

Status make_dropout(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_alias(desc, 1, 3));
  if (desc.has_input(2)) {
    const TensorInfo& training = desc.inputs[2];
    if (training.dtype != DType::kBool || !training.constant || training.data == nullptr ||
        training.shape.elements() != 1 || *static_cast<const uint8_t*>(training.data) != 0)
      return unsupported("Dropout in training mode");
  }
  const bool has_mask = desc.outputs.size() > 1 && desc.outputs[1] != DType::kUndefined;
  if (has_mask && desc.outputs[1] != DType::kBool)
    return invalid_model("Dropout: mask must be bool");
  *op = std::make_unique<DropoutOp>(has_mask);
  return {};
}

Status make_expand(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_alias(desc, 2, 2));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  *op = std::make_unique<ExpandOp>(size_of(desc.inputs[0].dtype), desc.isa);
  return {};
}

Status make_tile(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_alias(desc, 2, 2));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  *op = std::make_unique<TileOp>(size_of(desc.inputs[0].dtype), desc.isa);
  return {};
}

}  // namespace lepton
