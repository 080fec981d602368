// QuantizeLinear and DequantizeLinear are one-instruction programs over x, scale and zero point,
// the latter two viewed so that they broadcast along the axis; floats to bytes over one scale have
// kernels of their own. DynamicQuantizeLinear finds its range first. lepton.Lookup maps bytes
// through a table.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "ops/convert.h"
#include "ops/dynamic_quantize.h"
#include "ops/elementwise_op.h"
#include "ops/kernel_list.h"
#include "ops/lookup.h"
#include "ops/movement.h"
#include "ops/quantize_kernels.h"

namespace lepton {
namespace {

struct Range {
  int lo, hi;
};

bool quantized_range(DType t, Range* range) {
  switch (t) {
    case DType::kU8: *range = {0, 255}; return true;
    case DType::kS8: *range = {-128, 127}; return true;
    case DType::kU16: *range = {0, 65535}; return true;
    case DType::kS16: *range = {-32768, 32767}; return true;
    default: return false;
  }
}

bool is_f32_like(DType t) { return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16; }

class LinearOp : public ElementwiseOp {
 public:
  static Status create_linear(const StepDesc& step, const std::string& text,
                              std::unique_ptr<Op>* op) {
    std::unique_ptr<LinearOp> made(new LinearOp);
    made->axis_ = step.attrs->i("axis", 1);
    LEPTON_RETURN_IF_ERROR(made->init(step, text, Compute::kF32));
    *op = std::move(made);
    return {};
  }

 protected:
  Status input_shapes(const BindContext& context, std::vector<Shape>* shapes) const override {
    const Shape& x = context.input(0).shape;
    shapes->push_back(x);
    for (int i = 1; i < num_inputs(); ++i) {  // an omitted zero point has no input
      const Shape& s = context.input(i).shape;
      if (i == 2 && s.elements() != context.input(1).shape.elements())
        return invalid_input("scale and zero point differ in shape");
      if (s.rank <= 1 && s.elements() == 1) {
        shapes->push_back({});
        continue;
      }
      const int64_t axis = axis_ < 0 ? axis_ + x.rank : axis_;
      if (s.rank != 1) return unsupported("blocked quantisation");
      if (axis < 0 || axis >= x.rank || x[static_cast<int>(axis)] != s[0])
        return invalid_input("scale " + s.str() + " does not fit " + x.str());
      Shape view;
      for (int d = static_cast<int>(axis); d < x.rank; ++d) view.push_back(d == axis ? s[0] : 1);
      shapes->push_back(view);
    }
    return {};
  }

 private:
  int64_t axis_ = 1;
};

// An explicitly omitted zero point is as good as none.
StepDesc without_trailing(const StepDesc& step) {
  StepDesc copy = step;
  while (copy.inputs.size() > 2 && !copy.inputs.back().present) copy.inputs.pop_back();
  return copy;
}

Status check_linear(const StepDesc& step) {
  if (step.inputs.size() < 2 || step.inputs.size() > 3 || step.outputs.size() != 1)
    return invalid_model("expected x, scale, zero point");
  if (step.attrs->i("block_size") != 0) return unsupported("blocked quantisation");
  if (!step.has_input(0) || !step.has_input(1)) return invalid_model("x or scale is missing");
  if (!is_f32_like(step.inputs[1].dtype)) return unsupported("dtype of the scale");
  return {};
}

struct QuantizeInfo {
  std::string_view name;
  Isa isa;
  QuantizeKernel run;
};
const QuantizeInfo kQuantize[] = {
#define LEPTON_QUANTIZE(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/quantize_kernels.inc"
#undef LEPTON_QUANTIZE
};
constexpr KernelList<QuantizeInfo> kQuantizeList = {kQuantize,
                                                    sizeof kQuantize / sizeof kQuantize[0]};

// Values that are worth sharing out with others.
constexpr int64_t kQuantizeGrain = 1 << 15;

// What to multiply channels by so that one scale, the first channel's, is theirs: scales that
// differ by powers of two, such as smoothing leaves (compress/smoothing.py), without loss.
bool find_factors(const TensorInfo& scale, std::vector<float>* factors) {
  const float* const s = static_cast<const float*>(scale.data);
  if (s == nullptr || !(s[0] > 0x1p-40f && s[0] < 0x1p40f)) return false;
  factors->resize(static_cast<size_t>(scale.shape.elements()));
  for (size_t c = 0; c < factors->size(); ++c) {
    const float factor = s[0] / s[c];
    int exponent = 0;
    if (std::frexp(factor, &exponent) != 0.5f || std::abs(exponent) > 40) return false;
    if (s[c] * factor != s[0]) return false;
    (*factors)[c] = factor;
  }
  return true;
}

bool all_equal(const TensorInfo& zero_point) {
  const auto* const z = static_cast<const uint8_t*>(zero_point.data);
  return z != nullptr &&
         std::all_of(z, z + zero_point.shape.elements(), [&](uint8_t v) { return v == z[0]; });
}

// Floats to bytes; where scales differ otherwise, the program.
class QuantizeBytesOp final : public Op {
 public:
  QuantizeBytesOp(const StepDesc& step, std::unique_ptr<Op> program)
      : kernel_(kQuantizeList.best(step.isa)->run),
        is_signed_(step.outputs[0] == DType::kS8),
        has_zero_point_(step.inputs.size() == 3),
        axis_(step.attrs->i("axis", 1)),
        program_(std::move(program)) {}

  Status bind(BindContext& context) const override {
    if (has_channels(context)) return bind_channels(context);
    for (int i = 1; i < (has_zero_point_ ? 3 : 2); ++i)
      if (context.input(i).shape.elements() != 1 || context.input(i).shape.rank > 1)
        return program_->bind(context);
    const Shape shape = context.input(0).shape;
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    const int64_t n = shape.elements();
    if (n == 0) return nothing_to_run(context);
    context.set_run([this, n](const RunArgs& args) -> Status {
      const QuantizeParams whole = whole_of(args);
      parallel_ranges(args.parallel, n, kQuantizeGrain, [&](int64_t begin, int64_t end) {
        QuantizeParams part = whole;
        part.x += begin;
        part.y += begin;
        part.n = static_cast<size_t>(end - begin);
        kernel_(part);
      });
      return {};
    });
    return {};
  }

 private:
  QuantizeParams whole_of(const RunArgs& args) const {
    QuantizeParams whole = {args.input<float>(0),   nullptr, 0,
                            *args.input<float>(1),  0,       is_signed_,
                            args.output<uint8_t>(0)};
    if (has_zero_point_)
      whole.zero_point = is_signed_ ? *args.input<int8_t>(2) : *args.input<uint8_t>(2);
    return whole;
  }

  // Whether there is one scale for each place of the last dimension.
  bool has_channels(const BindContext& context) const {
    const Shape &x = context.input(0).shape, &scale = context.input(1).shape;
    if (x.rank == 0 || scale.rank != 1 || scale[0] < 2 || scale[0] != x[x.rank - 1]) return false;
    if (has_zero_point_ && context.input(2).shape != scale) return false;
    return axis_ == -1 || axis_ == x.rank - 1;
  }

  Status bind_channels(BindContext& context) const {
    auto factors = std::make_shared<std::vector<float>>();
    if (!find_factors(context.input(1), factors.get()) ||
        (has_zero_point_ && !all_equal(context.input(2))))
      return program_->bind(context);
    const Shape shape = context.input(0).shape;
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    if (shape.elements() == 0) return nothing_to_run(context);
    const int64_t width = shape[shape.rank - 1], rows = shape.elements() / width;
    context.set_run([this, factors, width, rows](const RunArgs& args) -> Status {
      QuantizeParams whole = whole_of(args);
      whole.factor = factors->data();
      whole.n = static_cast<size_t>(width);
      const int64_t grain = std::max<int64_t>(kQuantizeGrain / width, 1);
      parallel_ranges(args.parallel, rows, grain, [&](int64_t begin, int64_t end) {
        QuantizeParams row = whole;
        row.x += begin * width;
        row.y += begin * width;
        for (int64_t r = begin; r < end; ++r, row.x += width, row.y += width) kernel_(row);
      });
      return {};
    });
    return {};
  }

  QuantizeKernel kernel_;
  bool is_signed_, has_zero_point_;
  int64_t axis_;
  std::unique_ptr<Op> program_;
};

}  // namespace

Status make_quantize_linear(const StepDesc& whole, std::unique_ptr<Op>* op) {
  const StepDesc step = without_trailing(whole);
  LEPTON_RETURN_IF_ERROR(check_linear(step));
  Range range{};
  if (!quantized_range(step.outputs[0], &range)) return unsupported("dtype of y");
  const DType x = step.inputs[0].dtype;
  if (!is_f32_like(x) && x != DType::kS32) return unsupported("dtype of x");
  const bool has_zero_point = step.inputs.size() == 3;
  if (has_zero_point && step.inputs[2].dtype != step.outputs[0])
    return invalid_model("the zero point must have the dtype of y");
  const std::string text = std::string("Quantize r0 r1 ") + (has_zero_point ? "r2" : "#0") + " #" +
                           std::to_string(range.lo) + " #" + std::to_string(range.hi);
  std::unique_ptr<Op> program;
  LEPTON_RETURN_IF_ERROR(LinearOp::create_linear(step, text, &program));
  const bool bytes = range.hi - range.lo == 255;
  if (bytes && x == DType::kF32 && step.inputs[1].dtype == DType::kF32)
    *op = std::make_unique<QuantizeBytesOp>(step, std::move(program));
  else
    *op = std::move(program);
  return {};
}

Status make_dequantize_linear(const StepDesc& whole, std::unique_ptr<Op>* op) {
  const StepDesc step = without_trailing(whole);
  LEPTON_RETURN_IF_ERROR(check_linear(step));
  Range range{};
  const DType x = step.inputs[0].dtype;
  if (!quantized_range(x, &range) && x != DType::kS32) return unsupported("dtype of x");
  if (!is_f32_like(step.outputs[0])) return unsupported("dtype of y");
  const bool has_zero_point = step.inputs.size() == 3;
  if (has_zero_point && step.inputs[2].dtype != x)
    return invalid_model("the zero point must have the dtype of x");
  return LinearOp::create_linear(step, has_zero_point ? "Dequantize r0 r1 r2" : "Dequantize r0 r1",
                                 op);
}

namespace {

class DynamicQuantizeOp : public Op {
 public:
  explicit DynamicQuantizeOp(Isa isa) : quantizer_(isa) {}

  Status bind(BindContext& context) const override {
    const Shape shape = context.input(0).shape;
    const auto bound = DynamicQuantizer::bind(shape.elements(), context.threads());
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    LEPTON_RETURN_IF_ERROR(context.set_output(1, {}));
    LEPTON_RETURN_IF_ERROR(context.set_output(2, {}));
    context.set_scratch(bound.scratch_bytes());
    context.set_run([this, bound](const RunArgs& args) {
      const float* const x = args.input<float>(0);
      const auto range = quantizer_.range(bound, x, args.scratch, args.parallel);
      if (args.out[1] != nullptr) *args.output<float>(1) = range.scale;
      if (args.out[2] != nullptr) *args.output<uint8_t>(2) = range.zero_point;
      if (args.out[0] != nullptr)
        quantizer_.quantize(bound, x, range, args.output<uint8_t>(0), args.parallel);
      return Status();
    });
    return {};
  }

 private:
  DynamicQuantizer quantizer_;
};

struct LookupInfo {
  std::string_view name;
  Isa isa;
  LookupFn run;
};
const LookupInfo kLookup[] = {
#define LEPTON_LOOKUP(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/lookup_kernels.inc"
#undef LEPTON_LOOKUP
};
constexpr KernelList<LookupInfo> kLookupList = {kLookup, sizeof kLookup / sizeof kLookup[0]};

class LookupOp : public Op {
 public:
  LookupOp(size_t element_size, LookupFn bytes) : element_size_(element_size), bytes_(bytes) {}

  Status bind(BindContext& context) const override {
    const Shape shape = context.input(0).shape;
    if (context.input(1).shape.elements() != 256) return invalid_model("a table has 256 entries");
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    if (element_size_ == 1) context.allow_in_place(0, 0);
    const int64_t n = shape.elements();
    const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(n >> 16, 4 * context.threads()));
    context.set_run([this, n, chunks](const RunArgs& args) -> Status {
      args.parallel.loop(chunks, [&](int64_t c, int) {
        const int64_t first = n * c / chunks, last = n * (c + 1) / chunks;
        if (element_size_ == 1)
          bytes_(args.input<uint8_t>(0) + first, args.input<uint8_t>(1),
                 args.output<uint8_t>(0) + first, static_cast<size_t>(last - first));
        else
          look_up_floats(args, first, last);
      });
      return {};
    });
    return {};
  }

 private:
  static void look_up_floats(const RunArgs& args, int64_t first, int64_t last) {
    const uint8_t* x = args.input<uint8_t>(0);
    const float* table = args.input<float>(1);
    float* y = args.output<float>(0);
    for (int64_t i = first; i < last; ++i) y[i] = table[x[i]];
  }

  size_t element_size_;
  LookupFn bytes_;
};

}  // namespace

Status make_dynamic_quantize_linear(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (step.inputs.size() != 1 || step.outputs.size() != 3)
    return invalid_model("DynamicQuantizeLinear takes x and makes y, scale, zero point");
  if (step.inputs[0].dtype != DType::kF32) return unsupported("dtype of x");
  const auto is = [&](int i, DType t) {
    return step.outputs[static_cast<size_t>(i)] == t ||
           step.outputs[static_cast<size_t>(i)] == DType::kUndefined;
  };
  if (!is(0, DType::kU8) || !is(1, DType::kF32) || !is(2, DType::kU8))
    return unsupported("output dtypes");
  *op = std::make_unique<DynamicQuantizeOp>(step.isa);
  return {};
}

Status make_lookup(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (step.inputs.size() != 2 || step.outputs.size() != 1 || !step.has_input(1))
    return invalid_model("Lookup takes x and a table");
  const DType x = step.inputs[0].dtype, y = step.outputs[0];
  if (x != DType::kU8 && x != DType::kS8) return unsupported("dtype of x");
  if (y != DType::kU8 && y != DType::kS8 && y != DType::kF32) return unsupported("dtype of y");
  if (step.inputs[1].dtype != y) return invalid_model("the table must have the dtype of y");
  *op = std::make_unique<LookupOp>(lepton::size_of(y), kLookupList.best(step.isa)->run);
  return {};
}

}  // namespace lepton
