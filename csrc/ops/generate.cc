// Operators that make tensors from a few numbers: ConstantOfShape, Range, EyeLike, OneHot.
#include <cmath>
#include <cstring>

#include "ops/movement.h"

namespace lepton {
namespace {

// One element of any dtype, as its bytes.
struct Scalar {
  alignas(8) unsigned char bytes[8] = {};
};

template <typename T>
Scalar scalar_of(T value) {
  Scalar s;
  std::memcpy(s.bytes, &value, sizeof value);
  return s;
}

// A number as float16 or bfloat16 with `fraction` bits; false unless it is exact and normal or 0.
bool encode_short_float(double value, int fraction, int exponent_bias, uint16_t* bits) {
  const unsigned sign = std::signbit(value) ? 1u << 15 : 0;
  int exponent = 0;
  const double m = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
  if (m == 0.0) {
    *bits = static_cast<uint16_t>(sign);
    return true;
  }
  const int biased = exponent - 1 + exponent_bias;
  const double scaled = std::ldexp(m, fraction + 1);
  if (!std::isfinite(value) || biased < 1 || biased > 2 * exponent_bias ||
      scaled != std::floor(scaled))
    return false;
  const unsigned mantissa = static_cast<unsigned>(scaled) & ((1u << fraction) - 1);
  *bits = static_cast<uint16_t>(sign | static_cast<unsigned>(biased) << fraction | mantissa);
  return true;
}

// False where the dtype cannot hold the value as given.
bool encode_int(int64_t value, DType dtype, Scalar* s) {
  uint16_t bits = 0;
  switch (dtype) {
    case DType::kF32: *s = scalar_of(static_cast<float>(value)); return true;
    case DType::kF64: *s = scalar_of(static_cast<double>(value)); return true;
    case DType::kBool: *s = scalar_of<uint8_t>(value != 0); return true;
    case DType::kF16:
      if (!encode_short_float(static_cast<double>(value), 10, 15, &bits)) return false;
      *s = scalar_of(bits);
      return true;
    case DType::kBF16:
      if (!encode_short_float(static_cast<double>(value), 7, 127, &bits)) return false;
      *s = scalar_of(bits);
      return true;
    default:
      *s = scalar_of(value);  // little-endian: the low bytes are the value
      return is_number(dtype);
  }
}

bool encode_float(float value, DType dtype, Scalar* s) {
  uint16_t bits = 0;
  switch (dtype) {
    case DType::kF32: *s = scalar_of(value); return true;
    case DType::kF64:
      // The plan holds float32: only what is exact there is surely what the model says.
      if (std::isfinite(value) && value != std::floor(value)) return false;
      *s = scalar_of(static_cast<double>(value));
      return true;
    case DType::kF16:
    case DType::kBF16:
      if (!encode_short_float(value, dtype == DType::kF16 ? 10 : 7, dtype == DType::kF16 ? 15 : 127,
                              &bits))
        return false;
      *s = scalar_of(bits);
      return true;
    default: return false;
  }
}

StridedCopy fill_copy(int64_t elements, size_t element_size) {
  StridedCopy copy(element_size, Isa::k_scalar);
  copy.add_dim(elements, 0, 1);
  copy.prepare();
  return copy;
}

class ConstantOfShapeOp final : public Op {
 public:
  ConstantOfShapeOp(Scalar value, size_t element_size)
      : value_(value), element_size_(element_size) {}

  Status bind(BindContext& context) const override {
    std::vector<int64_t> dims;
    LEPTON_RETURN_IF_ERROR(require_ints(context, 0, "ConstantOfShape: shape", &dims));
    if (dims.size() > static_cast<size_t>(kMaxRank))
      return unsupported("ConstantOfShape: rank above 8");
    const Shape to = Shape::of(dims.data(), static_cast<int>(dims.size()));
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    context.set_run([value = value_, fill = fill_copy(to.elements(), element_size_)](
                        const RunArgs& args) -> Status {
      fill.run(value.bytes, args.out[0], args.parallel);
      return {};
    });
    return {};
  }

 private:
  Scalar value_;
  size_t element_size_;
};

template <typename T>
Status range_length(T start, T limit, T delta, int64_t* length) {
  if (delta == 0) return invalid_input("Range: delta is 0");
  if constexpr (std::is_floating_point_v<T>) {
    const double n = std::ceil((static_cast<double>(limit) - start) / delta);
    if (!(n <= static_cast<double>(kMaxElements))) return invalid_input("Range: too long");
    *length = n > 0 ? static_cast<int64_t>(n) : 0;
  } else {
    const int64_t a = start, b = limit, d = delta;
    *length = 0;
    if (d > 0 ? b <= a : b >= a) return {};
    const uint64_t ua = static_cast<uint64_t>(a), ub = static_cast<uint64_t>(b);
    const uint64_t span = d > 0 ? ub - ua : ua - ub;
    const uint64_t pace = d > 0 ? static_cast<uint64_t>(d) : 0 - static_cast<uint64_t>(d);
    const uint64_t n = (span - 1) / pace + 1;
    if (n > static_cast<uint64_t>(kMaxElements)) return invalid_input("Range: too long");
    *length = static_cast<int64_t>(n);
  }
  return {};
}

template <typename T>
class RangeOp final : public Op {
 public:
  Status bind(BindContext& context) const override {
    T v[3];
    for (int i = 0; i < 3; ++i) {
      if (!context.require_value(i)) return BindContext::needs_value();
      if (context.input(i).shape.elements() != 1)
        return invalid_input("Range: start, limit and delta must hold one value");
      v[i] = *static_cast<const T*>(context.input(i).data);
    }
    int64_t n = 0;
    LEPTON_RETURN_IF_ERROR(range_length(v[0], v[1], v[2], &n));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, {n}));
    context.set_run([start = v[0], delta = v[2], n](const RunArgs& args) -> Status {
      T* dst = args.output<T>(0);
      for (int64_t i = 0; i < n; ++i) {
        if constexpr (std::is_floating_point_v<T>)
          dst[i] = static_cast<T>(static_cast<double>(start) + static_cast<double>(delta) * i);
        else
          dst[i] = static_cast<T>(static_cast<uint64_t>(start) +
                                  static_cast<uint64_t>(delta) * static_cast<uint64_t>(i));
      }
      return {};
    });
    return {};
  }
};

class EyeLikeOp final : public Op {
 public:
  EyeLikeOp(int64_t k, Scalar one, size_t element_size)
      : k_(k), one_(one), element_size_(element_size) {}

  Status bind(BindContext& context) const override {
    const Shape& shape = context.input(0).shape;
    if (shape.rank != 2) return invalid_input("EyeLike: the input must have rank 2");
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    const int64_t rows = shape[0], cols = shape[1];
    const int64_t k = clamp_index(k_, -rows, cols);
    const int64_t first_row = k < 0 ? -k : 0, first_col = k > 0 ? k : 0;
    const int64_t left = rows - first_row < cols - first_col ? rows - first_row : cols - first_col;
    StridedCopy diagonal(element_size_, Isa::k_scalar);
    diagonal.add_dim(left, 0, cols + 1);
    diagonal.set_offsets(0, first_row * cols + first_col);
    diagonal.prepare();
    const size_t bytes = static_cast<size_t>(shape.elements()) * element_size_;
    context.set_run([diagonal, bytes, one = one_](const RunArgs& args) -> Status {
      if (bytes > 0) std::memset(args.out[0], 0, bytes);
      diagonal.run(one.bytes, args.out[0], args.parallel);
      return {};
    });
    return {};
  }

 private:
  int64_t k_;
  Scalar one_;
  size_t element_size_;
};

// Element i of a numeric tensor as an integer; -1 << 62 for what no integer near it stands for.
int64_t integer_at(const void* data, DType dtype, int64_t i) {
  constexpr int64_t kNone = -(int64_t{1} << 62);
  const auto from_float = [](double v) {
    return v > -4e18 && v < 4e18 ? static_cast<int64_t>(v) : kNone;
  };
  switch (dtype) {
    case DType::kU8: return static_cast<const uint8_t*>(data)[i];
    case DType::kS8: return static_cast<const int8_t*>(data)[i];
    case DType::kU16: return static_cast<const uint16_t*>(data)[i];
    case DType::kS16: return static_cast<const int16_t*>(data)[i];
    case DType::kU32: return static_cast<const uint32_t*>(data)[i];
    case DType::kS32: return static_cast<const int32_t*>(data)[i];
    case DType::kS64: return static_cast<const int64_t*>(data)[i];
    case DType::kU64: {
      const uint64_t v = static_cast<const uint64_t*>(data)[i];
      return v < uint64_t{1} << 62 ? static_cast<int64_t>(v) : kNone;
    }
    case DType::kF32: return from_float(static_cast<const float*>(data)[i]);
    default: return from_float(static_cast<const double*>(data)[i]);
  }
}

bool is_plain_number(DType t) {
  return is_number(t) && t != DType::kBool && t != DType::kF16 && t != DType::kBF16;
}

class OneHotOp final : public Op {
 public:
  OneHotOp(int64_t axis, DType index_dtype, size_t element_size)
      : axis_(axis), index_dtype_(index_dtype), element_size_(static_cast<int64_t>(element_size)) {}

  Status bind(BindContext& context) const override {
    const Shape from = context.input(0).shape;
    if (from.rank >= kMaxRank) return unsupported("OneHot: rank above 8");
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, from.rank + 1, &axis));
    if (!context.require_value(1)) return BindContext::needs_value();
    const TensorInfo& given = context.input(1);
    if (given.shape.elements() != 1 || context.input(2).shape.elements() != 2)
      return invalid_input("OneHot: depth must hold one value, values two");
    const int64_t depth = integer_at(given.data, given.dtype, 0);
    Shape to = Shape::of(from.dims, axis);
    to.push_back(depth);
    for (int i = axis; i < from.rank; ++i) to.push_back(from[i]);
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    const int64_t count = from.elements(), inner = from.product(axis, from.rank);
    context.set_run([=, fill = fill_copy(to.elements(), static_cast<size_t>(element_size_)),
                     size = element_size_, dtype = index_dtype_](const RunArgs& args) -> Status {
      const char* values = args.input<char>(2);
      fill.run(values, args.out[0], args.parallel);
      for (int64_t i = 0; i < count; ++i) {
        int64_t hot = integer_at(args.in[0], dtype, i);
        if (hot < 0) hot += depth;
        if (hot < 0 || hot >= depth) continue;
        const int64_t at = (i / inner * depth + hot) * inner + i % inner;
        std::memcpy(args.output<char>(0) + at * size, values + size, static_cast<size_t>(size));
      }
      return {};
    });
    return {};
  }

 private:
  int64_t axis_;
  DType index_dtype_;
  int64_t element_size_;
};

}  // namespace

Status make_constant_of_shape(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 1));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 0));
  const DType dtype = desc.outputs[0];
  const Attrs::Ints ints = desc.attrs->ints("value");
  const Attrs::Floats floats = desc.attrs->floats("value");
  Scalar value;
  bool encoded = true;
  if (ints.size == 1)
    encoded = encode_int(ints.data[0], dtype, &value);
  else if (floats.size == 1)
    encoded = encode_float(floats.data[0], dtype, &value);
  else if (desc.attrs->has("value"))
    return invalid_model("ConstantOfShape: value must be one number");
  if (!encoded) return unsupported("ConstantOfShape: this value as " + std::string(name_of(dtype)));
  *op = std::make_unique<ConstantOfShapeOp>(value, size_of(dtype));
  return {};
}

Status make_range(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 3, 3));
  for (size_t i = 0; i < 3; ++i) LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, i, 0));
  switch (desc.outputs[0]) {
    case DType::kF32: *op = std::make_unique<RangeOp<float>>(); return {};
    case DType::kF64: *op = std::make_unique<RangeOp<double>>(); return {};
    case DType::kS16: *op = std::make_unique<RangeOp<int16_t>>(); return {};
    case DType::kS32: *op = std::make_unique<RangeOp<int32_t>>(); return {};
    case DType::kS64: *op = std::make_unique<RangeOp<int64_t>>(); return {};
    default: return unsupported("Range of " + std::string(name_of(desc.outputs[0])));
  }
}

Status make_eye_like(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 1));
  Scalar one;
  if (!encode_int(1, desc.outputs[0], &one)) return unsupported("EyeLike: output dtype");
  *op = std::make_unique<EyeLikeOp>(desc.attrs->i("k"), one, size_of(desc.outputs[0]));
  return {};
}

Status make_one_hot(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 3, 3));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 2, 0));
  if (!is_plain_number(desc.inputs[0].dtype) || !is_plain_number(desc.inputs[1].dtype))
    return unsupported("OneHot: dtype of indices or depth");
  *op = std::make_unique<OneHotOp>(desc.attrs->i("axis", -1), desc.inputs[0].dtype,
                                   size_of(desc.outputs[0]));
  return {};
}

}  // namespace lepton
