// ScatterElements and ScatterND: a copy of data with some elements replaced or reduced. Updates
// apply in index order on one thread, so duplicates have one defined result.
#include <cstring>

#include "ops/indexing.h"
#include "ops/movement.h"

namespace lepton {
namespace {

enum class Reduction { kNone, kAdd, kMul, kMin, kMax };

bool parse_reduction(std::string_view name, Reduction* reduction) {
  if (name == "none")
    *reduction = Reduction::kNone;
  else if (name == "add")
    *reduction = Reduction::kAdd;
  else if (name == "mul")
    *reduction = Reduction::kMul;
  else if (name == "min")
    *reduction = Reduction::kMin;
  else if (name == "max")
    *reduction = Reduction::kMax;
  else
    return false;
  return true;
}

// Applies n adjacent updates: dst[i] = reduce(dst[i], src[i]).
using ApplyFn = void (*)(void* dst, const void* src, int64_t n);

template <typename T, Reduction kReduction>
T reduce(T a, T b) {
  // Small and signed integers wrap, as everywhere in ONNX: compute in an unsigned type.
  if constexpr (kReduction == Reduction::kMin)
    return b < a || b != b ? b : a;
  else if constexpr (kReduction == Reduction::kMax)
    return b > a || b != b ? b : a;
  else if constexpr (std::is_integral_v<T> && kReduction == Reduction::kAdd)
    return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  else if constexpr (kReduction == Reduction::kAdd)
    return a + b;
  else
    return a * b;
}

template <typename T, Reduction kReduction>
void apply(void* dst, const void* src, int64_t n) {
  T* d = static_cast<T*>(dst);
  const T* s = static_cast<const T*>(src);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (kReduction == Reduction::kNone)
      d[i] = s[i];
    else
      d[i] = reduce<T, kReduction>(d[i], s[i]);
  }
}

template <Reduction kReduction>
ApplyFn apply_for(DType dtype) {
  switch (dtype) {
    case DType::kF32: return apply<float, kReduction>;
    case DType::kF64: return apply<double, kReduction>;
    case DType::kU8: return apply<uint8_t, kReduction>;
    case DType::kS8: return apply<int8_t, kReduction>;
    case DType::kU16: return apply<uint16_t, kReduction>;
    case DType::kS16: return apply<int16_t, kReduction>;
    case DType::kU32: return apply<uint32_t, kReduction>;
    case DType::kS32: return apply<int32_t, kReduction>;
    case DType::kU64: return apply<uint64_t, kReduction>;
    case DType::kS64: return apply<int64_t, kReduction>;
    default: return nullptr;
  }
}

// Null when there is no kernel for this dtype.
ApplyFn find_apply(Reduction reduction, DType dtype) {
  switch (reduction) {
    case Reduction::kAdd: return apply_for<Reduction::kAdd>(dtype);
    case Reduction::kMul: return apply_for<Reduction::kMul>(dtype);
    case Reduction::kMin: return apply_for<Reduction::kMin>(dtype);
    case Reduction::kMax: return apply_for<Reduction::kMax>(dtype);
    default:
      switch (size_of(dtype)) {
        case 1: return apply<uint8_t, Reduction::kNone>;
        case 2: return apply<uint16_t, Reduction::kNone>;
        case 4: return apply<uint32_t, Reduction::kNone>;
        default: return apply<uint64_t, Reduction::kNone>;
      }
  }
}

StridedCopy whole_copy(const Shape& shape, int64_t element_size) {
  StridedCopy copy(static_cast<size_t>(element_size), Isa::k_scalar);
  copy.add_dim(shape.elements(), 1, 1);
  copy.prepare();
  return copy;
}

class ScatterElementsOp final : public Op {
 public:
  ScatterElementsOp(int64_t axis, ApplyFn apply, size_t element_size, DType index_dtype)
      : axis_(axis),
        apply_(apply),
        element_size_(static_cast<int64_t>(element_size)),
        index_dtype_(index_dtype) {}

  Status bind(BindContext& context) const override {
    const Shape data = context.input(0).shape;
    const Shape updates = context.input(2).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, data.rank, &axis));
    if (context.input(1).shape != updates || updates.rank != data.rank)
      return invalid_input("ScatterElements: indices and updates must agree in shape");
    for (int i = 0; i < data.rank; ++i)
      if (i != axis && updates[i] > data[i])
        return invalid_input("ScatterElements: updates " + updates.str() + " exceed data " +
                             data.str());
    LEPTON_RETURN_IF_ERROR(context.set_output(0, data));
    context.set_run([=, copy = whole_copy(data, element_size_), apply = apply_,
                     size = element_size_, dtype = index_dtype_](const RunArgs& args) -> Status {
      copy.run(args.in[0], args.out[0], args.parallel);
      const Strides strides = strides_of(data);
      const IndexReader reader(args.in[1], dtype);
      const int64_t total = updates.elements();
      for (int64_t i = 0; i < total; ++i) {
        int64_t offset = 0, rest = i;
        for (int d = data.rank - 1; d >= 0; --d) {
          if (d != axis) offset += rest % updates[d] * strides[d];
          rest /= updates[d];
        }
        const int64_t at = reader.position(i, data[axis]);
        if (at < 0) return invalid_input("ScatterElements: an index is out of range");
        apply(args.output<char>(0) + (offset + at * strides[axis]) * size,
              args.input<char>(2) + i * size, 1);
      }
      return {};
    });
    return {};
  }

 private:
  int64_t axis_;
  ApplyFn apply_;
  int64_t element_size_;
  DType index_dtype_;
};

class ScatterNdOp final : public Op {
 public:
  ScatterNdOp(ApplyFn apply, size_t element_size, DType index_dtype)
      : apply_(apply),
        element_size_(static_cast<int64_t>(element_size)),
        index_dtype_(index_dtype) {}

  Status bind(BindContext& context) const override {
    const Shape data = context.input(0).shape;
    const Shape indices = context.input(1).shape;
    if (indices.rank < 1 || indices[indices.rank - 1] > data.rank)
      return invalid_input("ScatterND: an index tuple is longer than data's rank");
    const int depth = static_cast<int>(indices[indices.rank - 1]);
    if (indices.rank - 1 + data.rank - depth > kMaxRank) return unsupported("ScatterND: rank");
    Shape expected = Shape::of(indices.dims, indices.rank - 1);
    for (int i = depth; i < data.rank; ++i) expected.push_back(data[i]);
    if (context.input(2).shape != expected)
      return invalid_input("ScatterND: updates must be " + expected.str());
    LEPTON_RETURN_IF_ERROR(context.set_output(0, data));
    const int64_t tuples = indices.product(0, indices.rank - 1);
    const int64_t run = data.product(depth, data.rank);
    context.set_run([=, copy = whole_copy(data, element_size_), apply = apply_,
                     size = element_size_, dtype = index_dtype_](const RunArgs& args) -> Status {
      copy.run(args.in[0], args.out[0], args.parallel);
      if (run == 0) return {};
      const IndexReader reader(args.in[1], dtype);
      for (int64_t t = 0; t < tuples; ++t) {
        int64_t offset = 0;
        for (int d = 0; d < depth; ++d) {
          const int64_t at = reader.position(t * depth + d, data[d]);
          if (at < 0) return invalid_input("ScatterND: an index is out of range");
          offset = offset * data[d] + at;
        }
        apply(args.output<char>(0) + offset * run * size, args.input<char>(2) + t * run * size,
              run);
      }
      return {};
    });
    return {};
  }

 private:
  ApplyFn apply_;
  int64_t element_size_;
  DType index_dtype_;
};

Status check_scatter(const StepDesc& desc, ApplyFn* apply) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 3, 3));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 2, 0));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  Reduction reduction = Reduction::kNone;
  if (!parse_reduction(desc.attrs->s("reduction", "none"), &reduction))
    return invalid_model(std::string(desc.op) + ": reduction");
  *apply = find_apply(reduction, desc.inputs[0].dtype);
  if (*apply == nullptr) return unsupported(std::string(desc.op) + ": reduction of this dtype");
  return {};
}

}  // namespace

Status make_scatter_elements(const StepDesc& desc, std::unique_ptr<Op>* op) {
  ApplyFn apply = nullptr;
  LEPTON_RETURN_IF_ERROR(check_scatter(desc, &apply));
  *op = std::make_unique<ScatterElementsOp>(desc.attrs->i("axis"), apply,
                                            size_of(desc.inputs[0].dtype), desc.inputs[1].dtype);
  return {};
}

Status make_scatter_nd(const StepDesc& desc, std::unique_ptr<Op>* op) {
  ApplyFn apply = nullptr;
  LEPTON_RETURN_IF_ERROR(check_scatter(desc, &apply));
  *op = std::make_unique<ScatterNdOp>(apply, size_of(desc.inputs[0].dtype), desc.inputs[1].dtype);
  return {};
}

}  // namespace lepton
