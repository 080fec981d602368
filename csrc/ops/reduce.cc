// Reductions. Float32 runs on the kernels of reduce.h, the other dtypes on plain loops over the
// same geometry. One task makes one output (rows) or up to 256 neighbouring outputs (columns),
// alone and in a fixed order, so the thread count changes nothing.
#include "ops/reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>

#include "ops/kernel_list.h"
#include "ops/movement.h"
#include "ops/op.h"
#include "ops/reduce_geometry.h"
#include "ops/via_f32.h"

namespace lepton {
namespace {

struct ReduceInfo {
  std::string_view name;
  Isa isa;
  ReduceKernels (*run)();
};
const ReduceInfo kReduce[] = {
#define LEPTON_REDUCE(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/reduce_kernels.inc"
#undef LEPTON_REDUCE
};

enum class Final { kNone, kMean, kSqrt, kLog, kLogSumExp };

struct Reduction {
  std::string_view name;
  ReduceOp op;
  Final final;
};
const Reduction kReductions[] = {
    {"ReduceSum", ReduceOp::kSum, Final::kNone},
    {"ReduceMean", ReduceOp::kSum, Final::kMean},
    {"ReduceMax", ReduceOp::kMax, Final::kNone},
    {"ReduceMin", ReduceOp::kMin, Final::kNone},
    {"ReduceProd", ReduceOp::kProd, Final::kNone},
    {"ReduceL1", ReduceOp::kSumAbs, Final::kNone},
    {"ReduceL2", ReduceOp::kSumSquare, Final::kSqrt},
    {"ReduceSumSquare", ReduceOp::kSumSquare, Final::kNone},
    {"ReduceLogSum", ReduceOp::kSum, Final::kLog},
    {"ReduceLogSumExp", ReduceOp::kSumExp, Final::kLogSumExp},
};

constexpr int64_t kColumns = static_cast<int64_t>(kReduceWidth);
// Elements worth a task of their own.
constexpr int64_t kGrain = 1 << 15;

// A float as T; integers saturate, NaN gives 0.
template <typename T>
T narrowed(double v) {
  if constexpr (std::is_integral<T>::value) {
    constexpr double kEnd = static_cast<double>(T(1) << (std::numeric_limits<T>::digits - 1)) * 2;
    if (v != v) return 0;
    if (v >= kEnd) return std::numeric_limits<T>::max();
    if (v <= static_cast<double>(std::numeric_limits<T>::lowest()))
      return std::numeric_limits<T>::lowest();
  }
  return static_cast<T>(v);
}

// How a dtype is reduced: the type of accumulators, and the arithmetic of one step. kWide: integers
// whose result is a root or a logarithm accumulate in float64.
template <typename T, bool kWide>
struct Arithmetic {
  static constexpr bool kFloat = kWide || std::is_floating_point<T>::value;
  using Acc = std::conditional_t<kFloat, double, T>;

  static Acc identity(ReduceOp op) {
    using Limits = std::numeric_limits<Acc>;
    switch (op) {
      case ReduceOp::kMax: return kFloat ? -Limits::infinity() : Limits::lowest();
      case ReduceOp::kMin: return kFloat ? Limits::infinity() : Limits::max();
      case ReduceOp::kProd: return 1;
      default: return 0;
    }
  }
  static Acc step(ReduceOp op, Acc a, Acc x, Acc shift) {
    switch (op) {
      case ReduceOp::kSum: return add(a, x);
      case ReduceOp::kSumAbs: return add(a, x < Acc(0) ? negate(x) : x);
      case ReduceOp::kSumSquare: return add(a, multiply(x, x));
      case ReduceOp::kSumExp:
        if constexpr (kFloat)
          return a + std::exp(x - shift);
        else
          return a;
      case ReduceOp::kMax: return x > a || x != x ? x : a;
      case ReduceOp::kMin: return x < a || x != x ? x : a;
      case ReduceOp::kProd: return multiply(a, x);
    }
    return a;
  }
  // Integers wrap: uint64_t arithmetic is defined for every value.
  static Acc add(Acc a, Acc b) {
    if constexpr (kFloat)
      return a + b;
    else
      return static_cast<Acc>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  }
  static Acc multiply(Acc a, Acc b) {
    if constexpr (kFloat)
      return a * b;
    else
      return static_cast<Acc>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  }
  static Acc negate(Acc a) {
    if constexpr (kFloat)
      return -a;
    else
      return static_cast<Acc>(0 - static_cast<uint64_t>(a));
  }
  static T finish(Final final, Acc a, Acc shift, int64_t n) {
    if constexpr (kFloat) {
      switch (final) {
        case Final::kNone: return narrowed<T>(a);
        case Final::kMean: return narrowed<T>(a / static_cast<double>(n));
        case Final::kSqrt: return narrowed<T>(std::sqrt(a));
        case Final::kLog: return narrowed<T>(std::log(a));
        case Final::kLogSumExp: return narrowed<T>(std::log(a) + shift);
      }
    } else if (final == Final::kMean) {
      using Wide = std::conditional_t<std::is_signed<T>::value, int64_t, uint64_t>;
      return n == 0 ? T(0) : static_cast<T>(static_cast<Wide>(a) / static_cast<Wide>(n));
    }
    return static_cast<T>(a);
  }
};

// Row and column loops of one dtype; float32 has kernels instead.
template <typename T, bool kWide>
struct Loops {
  using A = Arithmetic<T, kWide>;
  using Acc = typename A::Acc;
  explicit Loops(ReduceOp op, Isa) : op_(op) {}

  void row(const T* x, int64_t n, Acc shift, Acc* acc) const {
    for (int64_t i = 0; i < n; ++i) *acc = A::step(op_, *acc, static_cast<Acc>(x[i]), shift);
  }
  void columns(const T* x, int64_t rows, int64_t stride, int64_t width, const Acc* shift,
               Acc* acc) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < width; ++j)
        acc[j] = A::step(op_, acc[j], static_cast<Acc>(x[i * stride + j]), shift[j]);
  }

 private:
  ReduceOp op_;
};

template <>
struct Loops<float, false> {
  using A = Arithmetic<float, false>;
  Loops(ReduceOp op, Isa isa) : op_(op), kernel_(find_reduce(op, isa)) {}

  void row(const float* x, int64_t n, double shift, double* acc) const {
    const double part = kernel_.row(x, static_cast<size_t>(n), static_cast<float>(shift));
    const bool fold = op_ >= ReduceOp::kMax;
    *acc = fold ? A::step(op_, *acc, part, 0) : *acc + part;
  }
  void columns(const float* x, int64_t rows, int64_t stride, int64_t width, const double* shift,
               double* acc) const {
    float shift_f32[kReduceWidth];
    if (op_ == ReduceOp::kSumExp)
      for (int64_t j = 0; j < width; ++j) shift_f32[j] = static_cast<float>(shift[j]);
    kernel_.columns(x, static_cast<size_t>(rows), static_cast<size_t>(stride),
                    static_cast<size_t>(width), op_ == ReduceOp::kSumExp ? shift_f32 : nullptr,
                    acc);
  }

 private:
  ReduceOp op_;
  ReduceKernel kernel_;
};

template <typename T, bool kWide>
class ReduceOpOf : public Op {
 public:
  using A = Arithmetic<T, kWide>;
  using Acc = typename A::Acc;

  ReduceOpOf(const StepDesc& step, const Reduction& reduction)
      : op_(reduction.op),
        final_(reduction.final),
        loops_(reduction.op, step.isa),
        max_loops_(ReduceOp::kMax, step.isa),
        has_axes_input_(step.has_input(1)),
        keepdims_(step.attrs->i("keepdims", 1) != 0),
        noop_(step.attrs->i("noop_with_empty_axes") != 0) {
    const Attrs::Ints axes = step.attrs->ints("axes");
    axes_.assign(axes.data, axes.data + axes.size);
  }

  Status bind(BindContext& context) const override {
    std::vector<int> axes;
    LEPTON_RETURN_IF_ERROR(read_axes(context, axes_, has_axes_input_, noop_, &axes));
    const Shape& shape = context.input(0).shape;
    const Shape out = reduced_shape(shape, axes, keepdims_);
    LEPTON_RETURN_IF_ERROR(context.set_output(0, out));
    if (out.elements() == 0) return nothing_to_run(context);
    const ReduceGeometry g = reduce_geometry(shape, axes);
    const int64_t pieces = g.columns ? (g.run + kColumns - 1) / kColumns : 1;
    const int64_t tasks = g.kept.count() * pieces;
    const int64_t per_task = std::max<int64_t>(shape.elements() / tasks, 1);
    const int64_t grain = std::max<int64_t>(kGrain / per_task, 1);
    context.set_run([this, g, pieces, tasks, grain](const RunArgs& args) -> Status {
      parallel_ranges(args.parallel, tasks, grain, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          if (g.columns)
            reduce_columns(g, args, t / pieces, t % pieces * kColumns);
          else
            reduce_row(g, args, t);
        }
      });
      return {};
    });
    return {};
  }

 private:
  // exp may not overflow nor lose everything: subtract the maximum, where it is finite.
  static Acc shift_from(Acc max) {
    if constexpr (A::kFloat)
      return std::isfinite(max) ? max : 0;
    else
      return 0;
  }

  void reduce_row(const ReduceGeometry& g, const RunArgs& args, int64_t i) const {
    const T* x = args.input<T>(0) + g.kept.offset(i);
    const int64_t parts = g.reduced.count();
    Acc shift = 0;
    if (op_ == ReduceOp::kSumExp) {
      Acc max = A::identity(ReduceOp::kMax);
      for (int64_t p = 0; p < parts; ++p) max_loops_.row(x + g.reduced.offset(p), g.run, 0, &max);
      shift = shift_from(max);
    }
    Acc acc = A::identity(op_);
    for (int64_t p = 0; p < parts; ++p) loops_.row(x + g.reduced.offset(p), g.run, shift, &acc);
    args.output<T>(0)[i] = A::finish(final_, acc, shift, g.reduced_elements);
  }

  void reduce_columns(const ReduceGeometry& g, const RunArgs& args, int64_t row,
                      int64_t column) const {
    const T* x = args.input<T>(0) + g.kept.offset(row) + column;
    const int64_t width = std::min(kColumns, g.run - column);
    Acc shift[kReduceWidth] = {}, acc[kReduceWidth];
    if (op_ == ReduceOp::kSumExp) {
      fold_columns(max_loops_, ReduceOp::kMax, g, x, width, shift, acc);
      for (int64_t j = 0; j < width; ++j) shift[j] = shift_from(acc[j]);
    }
    fold_columns(loops_, op_, g, x, width, shift, acc);
    T* y = args.output<T>(0) + row * g.run + column;
    for (int64_t j = 0; j < width; ++j)
      y[j] = A::finish(final_, acc[j], shift[j], g.reduced_elements);
  }

  // The innermost reduced dimension goes to the kernel whole.
  static void fold_columns(const Loops<T, kWide>& loops, ReduceOp op, const ReduceGeometry& g,
                           const T* x, int64_t width, const Acc* shift, Acc* acc) {
    for (int64_t j = 0; j < width; ++j) acc[j] = A::identity(op);
    LoopNest outer = g.reduced;
    int64_t rows = 1, stride = 0;
    if (outer.rank > 0) {
      --outer.rank;
      rows = outer.dims[outer.rank];
      stride = outer.strides[outer.rank];
    }
    const int64_t parts = outer.count();
    for (int64_t p = 0; p < parts; ++p)
      loops.columns(x + outer.offset(p), rows, stride, width, shift, acc);
  }

  ReduceOp op_;
  Final final_;
  Loops<T, kWide> loops_, max_loops_;
  bool has_axes_input_, keepdims_, noop_;
  std::vector<int64_t> axes_;
};

}  // namespace

ReduceKernel find_reduce(ReduceOp op, Isa max) {
  for (const ReduceInfo& info : kReduce) {
    if (info.run == nullptr || !is_within(info.isa, max) || !machine_has(info.isa)) continue;
    const ReduceKernels kernels = info.run();
    for (size_t i = 0; i < kernels.size; ++i)
      if (kernels.list[i].op == op) return kernels.list[i];
  }
  return {};
}

Status make_reduce(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (has_half_floats(step)) return make_via_f32(step, make_reduce, op);
  LEPTON_RETURN_IF_ERROR(check_operands(step, 1, 2));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(step, 0, 0));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(step, 1));
  const Reduction* reduction = nullptr;
  for (const Reduction& r : kReductions)
    if (r.name == step.op) reduction = &r;
  if (reduction == nullptr) return internal_error("not a reduction");
  const bool fold = reduction->op == ReduceOp::kMax || reduction->op == ReduceOp::kMin;
  const bool integers = reduction->final == Final::kNone || reduction->final == Final::kMean;
  const auto make = [&](auto type, bool supported) -> Status {
    if (!supported) return unsupported("dtype of a reduction");
    using T = decltype(type);
    if constexpr (!std::is_floating_point<T>::value) {
      if (!integers) {
        *op = std::make_unique<ReduceOpOf<T, true>>(step, *reduction);
        return {};
      }
    }
    *op = std::make_unique<ReduceOpOf<T, false>>(step, *reduction);
    return {};
  };
  switch (step.inputs[0].dtype) {
    case DType::kF32: return make(float{}, true);
    case DType::kF64: return make(double{}, true);
    case DType::kS32: return make(int32_t{}, true);
    case DType::kS64: return make(int64_t{}, true);
    case DType::kU32: return make(uint32_t{}, true);
    case DType::kU64: return make(uint64_t{}, true);
    case DType::kU8: return make(uint8_t{}, fold);
    case DType::kS8: return make(int8_t{}, fold);
    case DType::kBool: return make(uint8_t{}, fold);
    default: return unsupported("dtype of a reduction");
  }
}

}  // namespace lepton
