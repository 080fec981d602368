// Shape and Size: known as soon as the input's shape is.
#include "ops/movement.h"

namespace lepton {
namespace {

class ShapeOp final : public Op {
 public:
  ShapeOp(int64_t start, int64_t end) : start_(start), end_(end) {}
  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    const int64_t start = clamp(start_, from.rank), end = clamp(end_, from.rank);
    const int64_t count = end > start ? end - start : 0;
    return context.set_known(0, {count}, from.dims + start,
                             static_cast<size_t>(count) * sizeof(int64_t));
  }

 private:
  static int64_t clamp(int64_t axis, int rank) {
    return clamp_index(axis < 0 ? axis + rank : axis, 0, rank);
  }
  int64_t start_, end_;
};

class SizeOp final : public Op {
 public:
  Status bind(BindContext& context) const override {
    const int64_t elements = context.input(0).shape.elements();
    return context.set_known(0, {}, &elements, sizeof elements);
  }
};

Status check(const StepDesc& desc) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 1));
  if (desc.outputs[0] != DType::kS64)
    return invalid_model(std::string(desc.op) + ": the output must be int64");
  return {};
}

}  // namespace

Status make_shape(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check(desc));
  *op = std::make_unique<ShapeOp>(desc.attrs->i("start"), desc.attrs->i("end", kMaxRank));
  return {};
}

Status make_size(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check(desc));
  *op = std::make_unique<SizeOp>();
  return {};
}

}  // namespace lepton
