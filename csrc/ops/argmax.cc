// ArgMax, ArgMin and CumSum: one axis of [outer, axis, inner], plain loops. Neighbouring columns
// run together, so memory is read in order.
#include <algorithm>
#include <memory>
#include <string>

#include "ops/movement.h"
#include "ops/op.h"
#include "ops/reduce_geometry.h"
#include "ops/via_f32.h"

namespace lepton {
namespace {

constexpr int64_t kColumns = 256;
constexpr int64_t kGrain = 1 << 15;

template <typename T>
class ArgOp : public Op {
 public:
  explicit ArgOp(const StepDesc& step)
      : max_(step.op == "ArgMax"),
        last_(step.attrs->i("select_last_index") != 0),
        keepdims_(step.attrs->i("keepdims", 1) != 0),
        axis_(step.attrs->i("axis")) {}

  Status bind(BindContext& context) const override {
    const Shape& shape = context.input(0).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, shape.rank, &axis));
    const Shape out = reduced_shape(shape, {axis}, keepdims_);
    LEPTON_RETURN_IF_ERROR(context.set_output(0, out));
    if (out.elements() == 0) return nothing_to_run(context);
    const AxisView v = view_axis(shape, axis);
    if (v.size == 0) return invalid_input("the axis has no elements");
    const int64_t pieces = (v.inner + kColumns - 1) / kColumns;
    const int64_t per_task = v.size * std::min(v.inner, kColumns);
    context.set_run([this, v, pieces, per_task](const RunArgs& args) -> Status {
      parallel_ranges(args.parallel, v.outer * pieces, kGrain / per_task,
                      [&](int64_t begin, int64_t end) {
                        for (int64_t t = begin; t < end; ++t)
                          search(args, v, t / pieces, t % pieces * kColumns);
                      });
      return {};
    });
    return {};
  }

 private:
  // NaN is larger and smaller than anything, and the first NaN wins, as in NumPy.
  bool is_better(T x, T best) const {
    if (best != best) return last_ && x != x;
    if (x != x) return true;
    return (max_ ? x > best : x < best) || (last_ && x == best);
  }

  void search(const RunArgs& args, const AxisView& v, int64_t outer, int64_t column) const {
    const T* x = args.input<T>(0) + outer * v.size * v.inner + column;
    int64_t* y = args.output<int64_t>(0) + outer * v.inner + column;
    const int64_t width = std::min(kColumns, v.inner - column);
    T best[kColumns];
    for (int64_t j = 0; j < width; ++j) {
      best[j] = x[j];
      y[j] = 0;
    }
    for (int64_t i = 1; i < v.size; ++i) {
      const T* row = x + i * v.inner;
      for (int64_t j = 0; j < width; ++j) {
        if (!is_better(row[j], best[j])) continue;
        best[j] = row[j];
        y[j] = i;
      }
    }
  }

  bool max_, last_, keepdims_;
  int64_t axis_;
};

template <typename T>
class CumSumOp : public Op {
 public:
  explicit CumSumOp(const StepDesc& step)
      : exclusive_(step.attrs->i("exclusive") != 0), reverse_(step.attrs->i("reverse") != 0) {}

  Status bind(BindContext& context) const override {
    int64_t raw = 0;
    LEPTON_RETURN_IF_ERROR(require_int(context, 1, "axis", &raw));
    const Shape& shape = context.input(0).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(raw, shape.rank, &axis));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    if (shape.elements() == 0) return nothing_to_run(context);
    const AxisView v = view_axis(shape, axis);
    const int64_t pieces = (v.inner + kColumns - 1) / kColumns;
    const int64_t per_task = v.size * std::min(v.inner, kColumns);
    context.set_run([this, v, pieces, per_task](const RunArgs& args) -> Status {
      parallel_ranges(args.parallel, v.outer * pieces, kGrain / per_task,
                      [&](int64_t begin, int64_t end) {
                        for (int64_t t = begin; t < end; ++t)
                          accumulate(args, v, t / pieces, t % pieces * kColumns);
                      });
      return {};
    });
    return {};
  }

 private:
  static T add(T a, T b) {
    if constexpr (std::is_integral<T>::value)
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    else
      return a + b;
  }

  void accumulate(const RunArgs& args, const AxisView& v, int64_t outer, int64_t column) const {
    const int64_t start = outer * v.size * v.inner + column;
    const T* x = args.input<T>(0) + start;
    T* y = args.output<T>(0) + start;
    const int64_t width = std::min(kColumns, v.inner - column);
    T sum[kColumns] = {};
    for (int64_t k = 0; k < v.size; ++k) {
      const int64_t row = (reverse_ ? v.size - 1 - k : k) * v.inner;
      for (int64_t j = 0; j < width; ++j) {
        const T next = add(sum[j], x[row + j]);
        y[row + j] = exclusive_ ? sum[j] : next;
        sum[j] = next;
      }
    }
  }

  bool exclusive_, reverse_;
};

template <template <typename> class OpOf>
Status make_for_dtype(const StepDesc& step, bool bytes, std::unique_ptr<Op>* op) {
  switch (step.inputs[0].dtype) {
    case DType::kF32: *op = std::make_unique<OpOf<float>>(step); return {};
    case DType::kF64: *op = std::make_unique<OpOf<double>>(step); return {};
    case DType::kS32: *op = std::make_unique<OpOf<int32_t>>(step); return {};
    case DType::kS64: *op = std::make_unique<OpOf<int64_t>>(step); return {};
    case DType::kU32: *op = std::make_unique<OpOf<uint32_t>>(step); return {};
    case DType::kU64: *op = std::make_unique<OpOf<uint64_t>>(step); return {};
    default: break;
  }
  if (bytes && step.inputs[0].dtype == DType::kU8) {
    *op = std::make_unique<OpOf<uint8_t>>(step);
    return {};
  }
  if (bytes && step.inputs[0].dtype == DType::kS8) {
    *op = std::make_unique<OpOf<int8_t>>(step);
    return {};
  }
  return unsupported("dtype of the input");
}

}  // namespace

Status make_arg(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (has_half_floats(step)) return make_via_f32(step, make_arg, op);
  LEPTON_RETURN_IF_ERROR(check_operands(step, 1, 1));
  if (step.outputs[0] != DType::kS64) return invalid_model("indices are int64");
  return make_for_dtype<ArgOp>(step, true, op);
}

Status make_cumsum(const StepDesc& step, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(step, 2, 2));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(step, 0, 0));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(step, 1));
  return make_for_dtype<CumSumOp>(step, false, op);
}

}  // namespace lepton
