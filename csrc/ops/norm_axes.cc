// LpNormalization and MeanVarianceNormalization: rare, plain loops in float64 over the geometry of
// a reduction; each task reduces one kept index and rewrites what it read.
#include <cmath>
#include <memory>
#include <vector>

#include "ops/movement.h"
#include "ops/norm_kernels.h"
#include "ops/op.h"
#include "ops/reduce_geometry.h"
#include "ops/via_f32.h"

namespace lepton {
namespace {

// Calls f(offset) for every element that reduces into kept index i.
template <typename F>
void for_each_reduced(const ReduceGeometry& g, int64_t i, const F& f) {
  const int64_t start = g.columns ? g.kept.offset(i / g.run) + i % g.run : g.kept.offset(i);
  const int64_t parts = g.reduced.count(), run = g.columns ? 1 : g.run;
  for (int64_t p = 0; p < parts; ++p) {
    const int64_t at = start + g.reduced.offset(p);
    for (int64_t j = 0; j < run; ++j) f(at + j);
  }
}

class AxesNormOp : public Op {
 public:
  explicit AxesNormOp(const StepDesc& step)
      : mean_variance_(step.op == "MeanVarianceNormalization"), p_(step.attrs->i("p", 2)) {
    const Attrs::Ints axes = step.attrs->ints("axes");
    if (!mean_variance_)
      axes_ = {step.attrs->i("axis", -1)};
    else if (axes.data != nullptr)
      axes_.assign(axes.data, axes.data + axes.size);
    else
      axes_ = {0, 2, 3};
  }

  Status bind(BindContext& context) const override {
    const Shape& shape = context.input(0).shape;
    std::vector<int> axes;
    LEPTON_RETURN_IF_ERROR(normalize_axes(axes_, shape.rank, &axes));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    context.allow_in_place(0, 0);
    if (shape.elements() == 0) return nothing_to_run(context);
    const ReduceGeometry g = reduce_geometry(shape, axes);
    const int64_t tasks = g.kept.count() * (g.columns ? g.run : 1);
    context.set_run([this, g, tasks](const RunArgs& args) -> Status {
      const float* x = args.input<float>(0);
      float* y = args.output<float>(0);
      const int64_t grain = kNormGrain / g.reduced_elements;
      parallel_ranges(args.parallel, tasks, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          mean_variance_ ? mean_variance(g, i, x, y) : lp(g, i, x, y);
      });
      return {};
    });
    return {};
  }

 private:
  // y = x / |x|_p; zero stays zero.
  void lp(const ReduceGeometry& g, int64_t i, const float* x, float* y) const {
    double norm = 0;
    for_each_reduced(g, i, [&](int64_t at) {
      const double v = x[at];
      norm += p_ == 1 ? std::fabs(v) : v * v;
    });
    if (p_ == 2) norm = std::sqrt(norm);
    const double divisor = norm == 0 ? 1 : norm;
    for_each_reduced(g, i, [&](int64_t at) { y[at] = static_cast<float>(x[at] / divisor); });
  }

  // y = (x − mean) / (deviation + 1e-9), ONNX's function body.
  static void mean_variance(const ReduceGeometry& g, int64_t i, const float* x, float* y) {
    const double n = static_cast<double>(g.reduced_elements);
    double sum = 0, square = 0;
    for_each_reduced(g, i, [&](int64_t at) { sum += x[at]; });
    const double mean = sum / n;
    for_each_reduced(g, i, [&](int64_t at) { square += (x[at] - mean) * (x[at] - mean); });
    const double divisor = std::sqrt(square / n) + 1e-9;
    for_each_reduced(g, i,
                     [&](int64_t at) { y[at] = static_cast<float>((x[at] - mean) / divisor); });
  }

  bool mean_variance_;
  int64_t p_;
  std::vector<int64_t> axes_;
};

}  // namespace

Status make_axes_norm(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (has_half_floats(step)) return make_via_f32(step, make_axes_norm, op);
  LEPTON_RETURN_IF_ERROR(check_operands(step, 1, 1));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(step, 0, 0));
  if (step.inputs[0].dtype != DType::kF32) return unsupported("dtype of the input");
  const int64_t p = step.attrs->i("p", 2);
  if (p != 1 && p != 2) return invalid_model("p must be 1 or 2");
  *op = std::make_unique<AxesNormOp>(step);
  return {};
}

}  // namespace lepton
