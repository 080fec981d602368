// Concat and Split: one strided copy per piece. A first piece that the caller keeps where the
// result begins (a cache that grows) is there already.
#include "ops/movement.h"

namespace lepton {
namespace {

class ConcatOp final : public Op {
 public:
  ConcatOp(int64_t axis, size_t element_size, Isa isa)
      : axis_(axis), element_size_(element_size), isa_(isa) {}

  Status bind(BindContext& context) const override {
    Shape to = context.input(0).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, to.rank, &axis));
    const int pieces = context.num_inputs();
    for (int i = 1; i < pieces; ++i) {
      const Shape& s = context.input(i).shape;
      if (s.rank != to.rank) return mismatch(to, s);
      for (int d = 0; d < to.rank; ++d)
        if (d != axis && s[d] != to[d]) return mismatch(to, s);
      to[axis] += s[axis];
      LEPTON_RETURN_IF_ERROR(check_shape(to));
    }
    if (pieces == 1) return context.set_alias(0, 0, to);
    LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    std::vector<StridedCopy> copies;
    copies.reserve(static_cast<size_t>(pieces));
    const int64_t outer = to.product(0, axis), inner = to.product(axis + 1, to.rank);
    int64_t offset = 0;
    for (int i = 0; i < pieces; ++i) {
      const int64_t run = context.input(i).shape[axis] * inner;
      StridedCopy copy(element_size_, isa_);
      copy.add_dim(outer, run, to[axis] * inner);
      copy.add_dim(run, 1, 1);
      copy.set_offsets(0, offset);
      copy.prepare();
      copies.push_back(copy);
      offset += run;
    }
    const bool in_front = outer == 1;
    context.set_run([copies = std::move(copies), in_front](const RunArgs& args) -> Status {
      for (size_t i = in_front && args.in[0] == args.out[0] ? 1 : 0; i < copies.size(); ++i)
        copies[i].run(args.in[i], args.out[0], args.parallel);
      return {};
    });
    return {};
  }

 private:
  static Status mismatch(const Shape& a, const Shape& b) {
    return invalid_input("Concat: shapes " + a.str() + " and " + b.str() + " do not fit");
  }

  int64_t axis_;
  size_t element_size_;
  Isa isa_;
};

class SplitOp final : public Op {
 public:
  SplitOp(int64_t axis, bool has_sizes, size_t element_size, Isa isa)
      : axis_(axis), has_sizes_(has_sizes), element_size_(element_size), isa_(isa) {}

  Status bind(BindContext& context) const override {
    const Shape& from = context.input(0).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, from.rank, &axis));
    std::vector<int64_t> sizes;
    LEPTON_RETURN_IF_ERROR(piece_sizes(context, from[axis], &sizes));
    if (sizes.size() == 1) return context.set_alias(0, 0, from);

    struct Piece {
      int output;
      StridedCopy copy;
    };
    std::vector<Piece> pieces;
    const int64_t outer = from.product(0, axis), inner = from.product(axis + 1, from.rank);
    int64_t offset = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const int output = static_cast<int>(i);
      const int64_t run = sizes[i] * inner;
      if (context.output_dtype(output) != DType::kUndefined) {
        Shape to = from;
        to[axis] = sizes[i];
        LEPTON_RETURN_IF_ERROR(context.set_output(output, to));
        StridedCopy copy(element_size_, isa_);
        copy.add_dim(outer, from[axis] * inner, run);
        copy.add_dim(run, 1, 1);
        copy.set_offsets(offset, 0);
        copy.prepare();
        pieces.push_back({output, copy});
      }
      offset += run;
    }
    context.set_run([pieces = std::move(pieces)](const RunArgs& args) -> Status {
      for (const Piece& p : pieces) p.copy.run(args.in[0], args.out[p.output], args.parallel);
      return {};
    });
    return {};
  }

 private:
  // Without given sizes all pieces are equal, but for a smaller last one.
  Status piece_sizes(BindContext& context, int64_t total, std::vector<int64_t>* sizes) const {
    const int64_t n = context.num_outputs();
    if (has_sizes_) {
      LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "Split: split", sizes));
      if (sizes->size() != static_cast<size_t>(n))
        return invalid_model("Split: one size per output is needed");
      int64_t sum = 0;
      for (int64_t s : *sizes) {
        if (s < 0 || s > total - sum) return wrong_sum(total);
        sum += s;
      }
      return sum == total ? Status() : wrong_sum(total);
    }
    const int64_t size = (total + n - 1) / n;
    const int64_t last = total - size * (n - 1);
    if (last < 0)
      return invalid_input("Split: " + std::to_string(total) + " does not split into " +
                           std::to_string(n));
    sizes->assign(static_cast<size_t>(n), size);
    sizes->back() = last;
    return {};
  }

  static Status wrong_sum(int64_t total) {
    return invalid_input("Split: sizes must add up to " + std::to_string(total));
  }

  int64_t axis_;
  bool has_sizes_;
  size_t element_size_;
  Isa isa_;
};

}  // namespace

Status make_concat(const StepDesc& desc, std::unique_ptr<Op>* op) {
  const size_t n = desc.inputs.size();
  LEPTON_RETURN_IF_ERROR(check_operands(desc, n < 1 ? 1 : n, n));
  for (size_t i = 0; i < n; ++i) LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, i, 0));
  if (!desc.attrs->has("axis")) return invalid_model("Concat: axis is missing");
  *op = std::make_unique<ConcatOp>(desc.attrs->i("axis"), size_of(desc.inputs[0].dtype), desc.isa);
  return {};
}

Status make_split(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 2, true));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  if (desc.outputs.empty()) return invalid_model("Split: no outputs");
  for (size_t i = 0; i < desc.outputs.size(); ++i)
    LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, i));
  const int64_t n = static_cast<int64_t>(desc.outputs.size());
  if (desc.attrs->i("num_outputs", n) != n)
    return invalid_model("Split: num_outputs differs from the number of outputs");
  *op = std::make_unique<SplitOp>(desc.attrs->i("axis"), desc.has_input(1),
                                  size_of(desc.inputs[0].dtype), desc.isa);
  return {};
}

}  // namespace lepton
