// LayerNormalization and RMSNormalization: rows over the trailing dimensions.
#include "ops/norm.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "ops/kernel_list.h"
#include "ops/movement.h"
#include "ops/norm_kernels.h"
#include "ops/op.h"
#include "ops/via_f32.h"

namespace lepton {
namespace {

struct NormInfo {
  std::string_view name;
  Isa isa;
  NormKernels (*run)();
};
const NormInfo kInfo[] = {
#define LEPTON_NORM(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/norm_kernels.inc"
#undef LEPTON_NORM
};
constexpr KernelList<NormInfo> kList = {kInfo, sizeof kInfo / sizeof kInfo[0]};

class RowNormOp : public Op {
 public:
  explicit RowNormOp(const StepDesc& step)
      : centred_(step.op == "LayerNormalization"),
        has_bias_(step.has_input(2)),
        axis_(step.attrs->i("axis", -1)),
        epsilon_(step.attrs->f("epsilon", 1e-5f)),
        kernels_(find_norm(step.isa)),
        outputs_(step.outputs.size()) {}

  Status bind(BindContext& context) const override {
    const Shape& shape = context.input(0).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, shape.rank, &axis));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    context.allow_in_place(0, 0);
    Shape rows_shape = shape;
    for (int d = axis; d < shape.rank; ++d) rows_shape[d] = 1;
    for (int i = 1; i < context.num_outputs(); ++i)
      LEPTON_RETURN_IF_ERROR(context.set_output(i, rows_shape));
    const int64_t rows = rows_shape.elements(), n = shape.product(axis, shape.rank);
    for (int i = 1; i < (has_bias_ ? 3 : 2); ++i)
      if (context.input(i).shape.elements() != n)
        return unsupported("scale " + context.input(i).shape.str() + " of rows of " +
                           std::to_string(n) + " values");
    if (rows == 0 || n == 0) return nothing_to_run(context);
    context.set_run([this, rows, n](const RunArgs& args) -> Status {
      parallel_ranges(args.parallel, rows, kNormGrain / n, [&](int64_t begin, int64_t end) {
        const int64_t together = std::clamp<int64_t>(kBlockValues / n, 1, kMostRows);
        for (int64_t r = begin; r < end; r += together)
          run_rows(args, r, std::min(together, end - r), n);
      });
      return {};
    });
    return {};
  }

 private:
  // Rows whose passes take turns: while one row's sum comes together, the next one is read.
  static constexpr int64_t kMostRows = 8, kBlockValues = 4096;

  void run_rows(const RunArgs& args, int64_t first, int64_t rows, int64_t count) const {
    const size_t n = static_cast<size_t>(count);
    const float* const x = args.input<float>(0) + first * count;
    float* const y = args.output<float>(0) + first * count;
    const double elements = static_cast<double>(count);
    float mean[kMostRows] = {}, inverse[kMostRows];
    for (int64_t i = 0; centred_ && i < rows; ++i)
      mean[i] = static_cast<float>(kernels_.sum(x + i * count, n) / elements);
    for (int64_t i = 0; i < rows; ++i) {
      const double variance = kernels_.sum_square(x + i * count, n, mean[i]) / elements;
      inverse[i] = inverse_deviation(variance, epsilon_);
    }
    const float* const beta = has_bias_ ? args.input<float>(2) : nullptr;
    for (int64_t i = 0; i < rows; ++i)
      kernels_.normalize(
          {x + i * count, y + i * count, n, mean[i], inverse[i], args.input<float>(1), beta});
    if (!centred_) return;
    if (has(args, 1)) std::copy_n(mean, rows, args.output<float>(1) + first);
    if (has(args, 2)) std::copy_n(inverse, rows, args.output<float>(2) + first);
  }
  bool has(const RunArgs& args, size_t i) const { return i < outputs_ && args.out[i] != nullptr; }

  bool centred_, has_bias_;
  int64_t axis_;
  float epsilon_;
  NormKernels kernels_;
  size_t outputs_;
};

}  // namespace

NormKernels find_norm(Isa max) { return kList.best(max)->run(); }

float inverse_deviation(double variance, float epsilon) {
  return static_cast<float>(1.0 / std::sqrt(variance + static_cast<double>(epsilon)));
}

Status make_row_norm(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (has_half_floats(step)) return make_via_f32(step, make_row_norm, op);
  LEPTON_RETURN_IF_ERROR(check_operands(step, 2, step.op == "LayerNormalization" ? 3 : 2));
  if (step.outputs.empty() || step.outputs.size() > (step.op == "LayerNormalization" ? 3 : 1))
    return invalid_model("number of outputs");
  for (const TensorInfo& input : step.inputs)
    if (input.present && input.dtype != DType::kF32) return unsupported("dtype of an input");
  for (DType t : step.outputs)
    if (t != DType::kF32 && t != DType::kUndefined) return unsupported("dtype of an output");
  if (step.attrs->i("stash_type", 1) != 1) return unsupported("stash_type");
  *op = std::make_unique<RowNormOp>(step);
  return {};
}

}  // namespace lepton
