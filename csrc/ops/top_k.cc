// TopK: a partial heap sort of the indices along one axis. The order is total: ties go to the lower
// index, NaN counts as greater than every number.
#include <algorithm>

#include "ops/movement.h"

namespace lepton {
namespace {

// The rows one call of a kernel works on.
struct TopKParams {
  const void* src;
  void* values;      // null when not asked for
  int64_t* indices;  // null when not asked for
  int64_t* order;    // scratch of n
  int64_t row;       // which of outer · inner
  int64_t n, k, inner;
};
using TopKKernel = void (*)(const TopKParams&);

template <typename T>
bool is_greater(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a) return b == b;
  }
  return a > b;
}

template <typename T, bool kLargest>
void top_k_row(const TopKParams& p) {
  const T* src = static_cast<const T*>(p.src) + p.row / p.inner * p.n * p.inner + p.row % p.inner;
  const auto precedes = [src, inner = p.inner](int64_t i, int64_t j) {
    const T a = src[i * inner], b = src[j * inner];
    if (is_greater(a, b)) return kLargest;
    if (is_greater(b, a)) return !kLargest;
    return i < j;
  };
  int64_t first = 0;
  if (p.k == 1) {
    for (int64_t i = 1; i < p.n; ++i)
      if (precedes(i, first)) first = i;
    p.order[0] = first;
  } else {
    for (int64_t i = 0; i < p.n; ++i) p.order[i] = i;
    std::partial_sort(p.order, p.order + p.k, p.order + p.n, precedes);
  }
  const int64_t out = p.row / p.inner * p.k * p.inner + p.row % p.inner;
  for (int64_t i = 0; i < p.k; ++i) {
    const int64_t at = out + i * p.inner;
    if (p.values != nullptr) static_cast<T*>(p.values)[at] = src[p.order[i] * p.inner];
    if (p.indices != nullptr) p.indices[at] = p.order[i];
  }
}

template <bool kLargest>
TopKKernel kernel_for(DType dtype) {
  switch (dtype) {
    case DType::kF32: return top_k_row<float, kLargest>;
    case DType::kF64: return top_k_row<double, kLargest>;
    case DType::kU8: return top_k_row<uint8_t, kLargest>;
    case DType::kS8: return top_k_row<int8_t, kLargest>;
    case DType::kU16: return top_k_row<uint16_t, kLargest>;
    case DType::kS16: return top_k_row<int16_t, kLargest>;
    case DType::kU32: return top_k_row<uint32_t, kLargest>;
    case DType::kS32: return top_k_row<int32_t, kLargest>;
    case DType::kU64: return top_k_row<uint64_t, kLargest>;
    case DType::kS64: return top_k_row<int64_t, kLargest>;
    default: return nullptr;
  }
}

class TopKOp final : public Op {
 public:
  TopKOp(int64_t axis, TopKKernel kernel, bool has_values, bool has_indices)
      : axis_(axis), kernel_(kernel), has_values_(has_values), has_indices_(has_indices) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, from.rank, &axis));
    int64_t k = 0;
    LEPTON_RETURN_IF_ERROR(require_int(context, 1, "TopK: k", &k));
    const int64_t n = from[axis];
    if (k < 0 || k > n)
      return invalid_input("TopK: k = " + std::to_string(k) + " of " + std::to_string(n));
    Shape to = from;
    to[axis] = k;
    if (has_values_) LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    if (has_indices_) LEPTON_RETURN_IF_ERROR(context.set_output(1, to));
    if (to.elements() == 0) return nothing_to_run(context);
    const int64_t inner = from.product(axis + 1, from.rank);
    const int64_t rows = from.product(0, axis) * inner;
    const size_t slot = thread_share(static_cast<size_t>(n) * sizeof(int64_t));
    context.set_scratch(slot * static_cast<size_t>(context.threads()));
    context.set_run([=, kernel = kernel_, has_values = has_values_,
                     has_indices = has_indices_](const RunArgs& args) -> Status {
      const int64_t grain = std::max<int64_t>(1, 4096 / n);
      args.parallel.loop((rows + grain - 1) / grain, [&](int64_t task, int thread) {
        TopKParams p;
        p.src = args.in[0];
        p.values = has_values ? args.out[0] : nullptr;
        p.indices = has_indices ? args.output<int64_t>(1) : nullptr;
        p.order = reinterpret_cast<int64_t*>(args.scratch + slot * static_cast<size_t>(thread));
        p.n = n;
        p.k = k;
        p.inner = inner;
        for (p.row = task * grain; p.row < std::min(rows, (task + 1) * grain); ++p.row) kernel(p);
      });
      return {};
    });
    return {};
  }

 private:
  int64_t axis_;
  TopKKernel kernel_;
  bool has_values_, has_indices_;
};

}  // namespace

Status make_top_k(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 2, 2, true));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  if (desc.inputs[1].dtype != DType::kS64) return invalid_model("TopK: k must be int64");
  const bool has_values = desc.outputs.size() > 0 && desc.outputs[0] != DType::kUndefined;
  const bool has_indices = desc.outputs.size() > 1 && desc.outputs[1] != DType::kUndefined;
  if (has_indices && desc.outputs[1] != DType::kS64)
    return invalid_model("TopK: indices must be int64");
  const DType dtype = desc.inputs[0].dtype;
  const TopKKernel kernel =
      desc.attrs->i("largest", 1) != 0 ? kernel_for<true>(dtype) : kernel_for<false>(dtype);
  if (kernel == nullptr) return unsupported("TopK of " + std::string(name_of(dtype)));
  *op = std::make_unique<TopKOp>(desc.attrs->i("axis", -1), kernel, has_values, has_indices);
  return {};
}

}  // namespace lepton
