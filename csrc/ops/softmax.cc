// Softmax, LogSoftmax and Hardmax along one axis: rows when it is the last, else blocks of columns.
#include "ops/softmax.h"

#include <algorithm>
#include <memory>

#include "ops/kernel_list.h"
#include "ops/movement.h"
#include "ops/op.h"
#include "ops/reduce_geometry.h"
#include "ops/softmax_kernels.h"
#include "ops/via_f32.h"

namespace lepton {
namespace {

struct SoftmaxInfo {
  std::string_view name;
  Isa isa;
  SoftmaxKernels (*run)();
};
const SoftmaxInfo kInfo[] = {
#define LEPTON_SOFTMAX(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/softmax_kernels.inc"
#undef LEPTON_SOFTMAX
};
constexpr KernelList<SoftmaxInfo> kList = {kInfo, sizeof kInfo / sizeof kInfo[0]};

constexpr int64_t kWidth = static_cast<int64_t>(kSoftmaxWidth);
// Elements worth a task of their own: exponentials, a few nanoseconds each at worst.
constexpr int64_t kGrain = 1 << 13;

enum class Mode { kSoftmax, kLog, kHard };

class SoftmaxOp : public Op {
 public:
  SoftmaxOp(Mode mode, int64_t axis, SoftmaxKernels kernels)
      : mode_(mode), axis_(axis), kernels_(kernels) {}

  Status bind(BindContext& context) const override {
    const Shape& shape = context.input(0).shape;
    int axis = 0;
    if (shape.rank > 0) LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, shape.rank, &axis));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    context.allow_in_place(0, 0);
    if (shape.elements() == 0) return nothing_to_run(context);
    const AxisView v = shape.rank > 0 ? view_axis(shape, axis) : AxisView{1, 1, 1};
    const int64_t pieces = (v.inner + kWidth - 1) / kWidth;
    const int64_t grain = kGrain / (v.size * std::min(v.inner, kWidth));
    context.set_run([this, v, pieces, grain](const RunArgs& args) -> Status {
      parallel_ranges(args.parallel, v.outer * pieces, grain, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) run(args, v, t / pieces, t % pieces * kWidth);
      });
      return {};
    });
    return {};
  }

 private:
  void run(const RunArgs& args, const AxisView& v, int64_t outer, int64_t column) const {
    const int64_t start = outer * v.size * v.inner + column;
    const float* x = args.input<float>(0) + start;
    float* y = args.output<float>(0) + start;
    const size_t n = static_cast<size_t>(v.size), stride = static_cast<size_t>(v.inner);
    const size_t width = static_cast<size_t>(std::min(kWidth, v.inner - column));
    if (mode_ == Mode::kHard) {
      for (size_t j = 0; j < width; ++j) hardmax(x + j, y + j, n, stride);
    } else if (stride == 1) {
      kernels_.row(x, y, n, mode_ == Mode::kLog);
    } else {
      kernels_.columns(x, y, n, stride, width, mode_ == Mode::kLog);
    }
  }

  static void hardmax(const float* x, float* y, size_t n, size_t stride) {
    size_t best = 0;
    for (size_t i = 1; i < n; ++i)
      if (x[i * stride] > x[best * stride]) best = i;
    for (size_t i = 0; i < n; ++i) y[i * stride] = i == best ? 1.0f : 0.0f;
  }

  Mode mode_;
  int64_t axis_;
  SoftmaxKernels kernels_;
};

}  // namespace

SoftmaxKernels find_softmax(Isa max) { return kList.best(max)->run(); }

Status make_softmax(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (has_half_floats(step)) return make_via_f32(step, make_softmax, op);
  LEPTON_RETURN_IF_ERROR(check_operands(step, 1, 1));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(step, 0, 0));
  if (step.inputs[0].dtype != DType::kF32) return unsupported("dtype of the input");
  const Mode mode = step.op == "LogSoftmax" ? Mode::kLog
                    : step.op == "Hardmax"  ? Mode::kHard
                                            : Mode::kSoftmax;
  *op = std::make_unique<SoftmaxOp>(mode, step.attrs->i("axis", -1), find_softmax(step.isa));
  return {};
}

}  // namespace lepton
