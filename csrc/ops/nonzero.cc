// NonZero and Compress: what they select, and so the shape of the result, depends on data. Both
// count first, then allocate and fill; the fill never passes the count, whatever happens to the
// input.
#include <cstring>

#include "ops/movement.h"

namespace lepton {
namespace {

Status out_of_memory(const char* op) { return {Code::kOutOfMemory, std::string(op) + ": output"}; }

// Bits that decide whether an element is zero: all but the sign of a float (-0.0 is zero).
template <typename T>
T zero_mask(DType dtype) {
  const bool is_float =
      dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kF16 || dtype == DType::kBF16;
  return static_cast<T>(is_float ? static_cast<T>(~T{0}) >> 1 : ~T{0});
}

// Writes the position of each non-zero element, axis by axis: indices[axis][found].
template <typename T>
void list_nonzeros(const T* data, T mask, const Shape& shape, int64_t count, int64_t* indices) {
  int64_t position[kMaxRank] = {};
  int64_t found = 0;
  const int64_t total = shape.elements();
  for (int64_t i = 0; i < total && found < count; ++i) {
    if ((data[i] & mask) != 0) {
      for (int d = 0; d < shape.rank; ++d) indices[d * count + found] = position[d];
      ++found;
    }
    for (int d = shape.rank - 1; d >= 0; --d) {
      if (++position[d] < shape[d]) break;
      position[d] = 0;
    }
  }
}

template <typename T>
Status run_nonzero(DynamicArgs& args) {
  const TensorInfo& x = args.input(0);
  const T* data = static_cast<const T*>(x.data);
  const T mask = zero_mask<T>(x.dtype);
  const Shape shape = x.shape.rank > 0 ? x.shape : Shape{1};
  int64_t count = 0;
  const int64_t total = shape.elements();
  for (int64_t i = 0; i < total; ++i) count += (data[i] & mask) != 0;
  void* out = args.allocate(0, DType::kS64, {shape.rank, count});
  if (out == nullptr) return out_of_memory("NonZero");
  if (count > 0) {
    std::memset(out, 0, static_cast<size_t>(shape.rank * count) * sizeof(int64_t));
    list_nonzeros(data, mask, shape, count, static_cast<int64_t*>(out));
  }
  return {};
}

class NonZeroOp final : public Op {
 public:
  explicit NonZeroOp(size_t element_size) : element_size_(element_size) {}
  Status bind(BindContext& context) const override {
    context.set_dynamic_run([size = element_size_](DynamicArgs& args) -> Status {
      return with_element_type(size, [&](auto zero) { return run_nonzero<decltype(zero)>(args); });
    });
    return {};
  }

 private:
  size_t element_size_;
};

class CompressOp final : public Op {
 public:
  CompressOp(bool has_axis, int64_t axis, size_t element_size)
      : has_axis_(has_axis), axis_(axis), element_size_(element_size) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    int axis = 0;
    if (has_axis_) LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, from.rank, &axis));
    const int64_t limit = has_axis_ ? from[axis] : from.elements();
    const Shape& condition = context.input(1).shape;
    if (condition.rank != 1 || condition[0] > limit)
      return invalid_input("Compress: the condition must be a vector no longer than the axis");
    context.set_dynamic_run([flat = !has_axis_, axis, size = element_size_](DynamicArgs& args) {
      return run(args, flat, axis, static_cast<int64_t>(size));
    });
    return {};
  }

 private:
  static Status run(DynamicArgs& args, bool flat, int axis, int64_t size) {
    const TensorInfo& x = args.input(0);
    const auto* condition = static_cast<const uint8_t*>(args.input(1).data);
    const int64_t tested = args.input(1).shape[0];
    int64_t count = 0;
    for (int64_t i = 0; i < tested; ++i) count += condition[i] != 0;
    const Shape from = flat ? Shape{x.shape.elements()} : x.shape;
    Shape to = from;
    to[axis] = count;
    char* dst = static_cast<char*>(args.allocate(0, x.dtype, to));
    if (dst == nullptr) return out_of_memory("Compress");
    const int64_t outer = from.product(0, axis);
    const int64_t run = from.product(axis + 1, from.rank) * size;
    if (outer * run * count == 0) return {};
    const char* src = static_cast<const char*>(x.data);
    for (int64_t o = 0; o < outer; ++o, src += from[axis] * run, dst += count * run) {
      int64_t kept = 0;
      for (int64_t i = 0; i < tested && kept < count; ++i)
        if (condition[i] != 0)
          std::memcpy(dst + kept++ * run, src + i * run, static_cast<size_t>(run));
    }
    return {};
  }

  bool has_axis_;
  int64_t axis_;
  size_t element_size_;
};

}  // namespace

Status make_nonzero(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 1));
  if (desc.outputs[0] != DType::kS64) return invalid_model("NonZero: the output must be int64");
  if (!is_number(desc.inputs[0].dtype)) return unsupported("NonZero: dtype");
  *op = std::make_unique<NonZeroOp>(size_of(desc.inputs[0].dtype));
  return {};
}

Status make_compress(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 2, 2));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  if (desc.inputs[1].dtype != DType::kBool)
    return invalid_model("Compress: the condition must be bool");
  *op = std::make_unique<CompressOp>(desc.attrs->has("axis"), desc.attrs->i("axis"),
                                     size_of(desc.inputs[0].dtype));
  return {};
}

}  // namespace lepton
