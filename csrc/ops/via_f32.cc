#include "ops/via_f32.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "ops/convert.h"
#include "ops/movement.h"

namespace lepton {
namespace {

constexpr size_t kMaxInner = 8;
constexpr int64_t kGrain = 1 << 15;

bool is_half(DType t) { return t == DType::kF16 || t == DType::kBF16; }

// What the inner operator sees while it is bound: float32 where there is a half float. Shapes pass
// through; memory is never shared, since the inner operands live in scratch.
class WideContext : public BindContext {
 public:
  explicit WideContext(BindContext& outer) : outer_(outer) {
    for (int i = 0; i < outer.num_inputs(); ++i) {
      inputs_.push_back(outer.input(i));
      if (!is_half(inputs_.back().dtype)) continue;
      inputs_.back().dtype = DType::kF32;
      inputs_.back().data = nullptr;
    }
    shapes.resize(static_cast<size_t>(outer.num_outputs()));
  }

  int num_inputs() const override { return outer_.num_inputs(); }
  const TensorInfo& input(int i) const override { return inputs_[static_cast<size_t>(i)]; }
  int num_outputs() const override { return outer_.num_outputs(); }
  DType output_dtype(int i) const override {
    return is_half(outer_.output_dtype(i)) ? DType::kF32 : outer_.output_dtype(i);
  }
  int threads() const override { return outer_.threads(); }
  bool require_value(int i) override {
    if (is_half(outer_.input(i).dtype) || !outer_.require_value(i)) return false;
    inputs_[static_cast<size_t>(i)].data = outer_.input(i).data;
    return true;
  }
  Status set_output(int i, const Shape& shape) override {
    shapes[static_cast<size_t>(i)] = shape;
    return outer_.set_output(i, shape);
  }
  Status set_alias(int, int, const Shape&) override { return unsupported("a view of half floats"); }
  Status set_known(int, const Shape&, const void*, size_t) override {
    return unsupported("a known value of half floats");
  }
  void allow_in_place(int, int) override {}
  void set_scratch(size_t bytes) override { scratch = bytes; }
  void set_run(RunFn fn) override { run = std::move(fn); }
  void set_dynamic_run(DynamicFn) override {}

  std::vector<Shape> shapes;  // of the outputs
  size_t scratch = 0;
  RunFn run;

 private:
  BindContext& outer_;
  std::vector<TensorInfo> inputs_;
};

// One operand in scratch.
struct Converted {
  size_t operand, offset, element_size;
  int64_t elements;
  ConvertFn convert;
};

class ViaF32Op : public Op {
 public:
  ViaF32Op(const StepDesc& step, std::unique_ptr<Op> inner)
      : inner_(std::move(inner)), isa_(step.isa) {}

  Status bind(BindContext& context) const override {
    WideContext wide(context);
    LEPTON_RETURN_IF_ERROR(inner_->bind(wide));
    if (!wide.run) return unsupported("half floats");
    size_t end = round_up(wide.scratch, kCacheLine);
    const auto place = [&](size_t i, DType t, int64_t n, bool is_load) {
      const auto find = is_load ? find_load : find_store;
      const Converted c = {i, end, size_of(t), n, find(Compute::kF32, t, isa_)};
      end += round_up(static_cast<size_t>(n) * sizeof(float), kCacheLine);
      return c;
    };
    std::vector<Converted> loads, stores;
    for (int i = 0; i < context.num_inputs(); ++i) {
      const TensorInfo& t = context.input(i);
      if (t.present && is_half(t.dtype))
        loads.push_back(place(static_cast<size_t>(i), t.dtype, t.shape.elements(), true));
    }
    for (int i = 0; i < context.num_outputs(); ++i)
      if (is_half(context.output_dtype(i)))
        stores.push_back(place(static_cast<size_t>(i), context.output_dtype(i),
                               wide.shapes[static_cast<size_t>(i)].elements(), false));
    context.set_scratch(end);
    const size_t inputs = static_cast<size_t>(context.num_inputs());
    const size_t outputs = static_cast<size_t>(context.num_outputs());
    context.set_run(
        [run = std::move(wide.run), loads, stores, inputs, outputs](const RunArgs& args) -> Status {
          const void* in[kMaxInner];
          void* out[kMaxInner];
          std::copy(args.in, args.in + inputs, in);
          std::copy(args.out, args.out + outputs, out);
          for (const Converted& c : loads) {
            in[c.operand] = args.scratch + c.offset;
            convert(args.parallel, c, args.in[c.operand], c.element_size, args.scratch + c.offset,
                    sizeof(float));
          }
          for (const Converted& c : stores) out[c.operand] = args.scratch + c.offset;
          LEPTON_RETURN_IF_ERROR(run(RunArgs{in, out, args.scratch, args.parallel}));
          for (const Converted& c : stores)
            convert(args.parallel, c, args.scratch + c.offset, sizeof(float), args.out[c.operand],
                    c.element_size);
          return {};
        });
    return {};
  }

 private:
  static void convert(const Parallel& parallel, const Converted& c, const void* src,
                      size_t src_size, void* dst, size_t dst_size) {
    const auto* from = static_cast<const std::byte*>(src);
    auto* to = static_cast<std::byte*>(dst);
    parallel_ranges(parallel, c.elements, kGrain, [&](int64_t begin, int64_t end) {
      c.convert(from + static_cast<size_t>(begin) * src_size,
                to + static_cast<size_t>(begin) * dst_size, static_cast<size_t>(end - begin));
    });
  }

  std::unique_ptr<Op> inner_;
  Isa isa_;
};

}  // namespace

bool has_half_floats(const StepDesc& step) {
  for (const TensorInfo& input : step.inputs)
    if (input.present && is_half(input.dtype)) return true;
  return std::any_of(step.outputs.begin(), step.outputs.end(), is_half);
}

Status make_via_f32(const StepDesc& step, OpFactory inner, std::unique_ptr<Op>* op) {
  if (step.inputs.size() > kMaxInner || step.outputs.size() > kMaxInner)
    return unsupported("number of operands");
  StepDesc wide = step;
  for (TensorInfo& input : wide.inputs) {
    if (!is_half(input.dtype)) continue;
    input.dtype = DType::kF32;
    input.data = nullptr;
  }
  for (DType& t : wide.outputs)
    if (is_half(t)) t = DType::kF32;
  std::unique_ptr<Op> made;
  LEPTON_RETURN_IF_ERROR(inner(wide, &made));
  *op = std::make_unique<ViaF32Op>(step, std::move(made));
  return {};
}

}  // namespace lepton
