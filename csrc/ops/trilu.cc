// Trilu and ReverseSequence: copies of whole runs, row by row.
#include <cstring>

#include "ops/indexing.h"
#include "ops/movement.h"

namespace lepton {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;

// Keeps columns [r + k, cols) of row r, or [0, r + k] for the lower triangle; zeros elsewhere.
class TriluOp final : public Op {
 public:
  TriluOp(bool upper, bool has_k, size_t element_size)
      : upper_(upper), has_k_(has_k), element_size_(static_cast<int64_t>(element_size)) {}

  Status bind(BindContext& context) const override {
    const Shape shape = context.input(0).shape;
    if (shape.rank < 2) return invalid_input("Trilu: the input must have rank 2 or more");
    const int64_t rows = shape[shape.rank - 2], cols = shape[shape.rank - 1];
    int64_t k = 0;
    if (has_k_) LEPTON_RETURN_IF_ERROR(require_int(context, 1, "Trilu: k", &k));
    k = clamp_index(k, -rows - 1, cols + 1);
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    const int64_t total = shape.product(0, shape.rank - 1);
    context.set_run([=, upper = upper_, size = element_size_](const RunArgs& args) -> Status {
      const int64_t row_bytes = cols * size;
      if (row_bytes == 0) return {};
      parallel_ranges(args.parallel, total, kTaskBytes / row_bytes, [&](int64_t r, int64_t end) {
        for (; r < end; ++r) {
          const char* src = args.input<char>(0) + r * row_bytes;
          char* dst = args.output<char>(0) + r * row_bytes;
          const int64_t edge = r % rows + k + (upper ? 0 : 1);
          const size_t cut = static_cast<size_t>(clamp_index(edge, 0, cols) * size);
          const size_t rest = static_cast<size_t>(row_bytes) - cut;
          if (upper) {
            std::memset(dst, 0, cut);
            std::memcpy(dst + cut, src + cut, rest);
          } else {
            std::memcpy(dst, src, cut);
            std::memset(dst + cut, 0, rest);
          }
        }
      });
      return {};
    });
    return {};
  }

 private:
  bool upper_, has_k_;
  int64_t element_size_;
};

class ReverseSequenceOp final : public Op {
 public:
  ReverseSequenceOp(int time_axis, size_t element_size)
      : time_axis_(time_axis), element_size_(static_cast<int64_t>(element_size)) {}

  Status bind(BindContext& context) const override {
    const Shape shape = context.input(0).shape;
    const Shape& lengths = context.input(1).shape;
    if (shape.rank < 2) return invalid_input("ReverseSequence: the input must have rank 2 or more");
    const int64_t time = shape[time_axis_], batch = shape[1 - time_axis_];
    if (lengths != Shape{batch})
      return invalid_input("ReverseSequence: one length per batch entry is needed");
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape));
    const int64_t run = shape.product(2, shape.rank) * element_size_;
    const int64_t time_stride = time_axis_ == 0 ? batch * run : run;
    const int64_t batch_stride = time_axis_ == 0 ? run : time * run;
    context.set_run([=](const RunArgs& args) -> Status {
      RangeFailure failure;
      if (run == 0) return {};
      args.parallel.loop(batch, [&](int64_t b, int) {
        const int64_t length = args.input<int64_t>(1)[b];
        if (length < 0 || length > time) return failure.report();
        const char* src = args.input<char>(0) + b * batch_stride;
        char* dst = args.output<char>(0) + b * batch_stride;
        for (int64_t t = 0; t < time; ++t)
          std::memcpy(dst + t * time_stride, src + (t < length ? length - 1 - t : t) * time_stride,
                      static_cast<size_t>(run));
      });
      return failure.status("ReverseSequence");
    });
    return {};
  }

 private:
  int time_axis_;
  int64_t element_size_;
};

}  // namespace

Status make_trilu(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 1, 2));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  LEPTON_RETURN_IF_ERROR(check_index_dtype(desc, 1));
  *op = std::make_unique<TriluOp>(desc.attrs->i("upper", 1) != 0, desc.has_input(1),
                                  size_of(desc.inputs[0].dtype));
  return {};
}

Status make_reverse_sequence(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 2, 2));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  const int64_t time_axis = desc.attrs->i("time_axis", 0);
  const int64_t batch_axis = desc.attrs->i("batch_axis", 1);
  if (desc.inputs[1].dtype != DType::kS64)
    return invalid_model("ReverseSequence: sequence_lens must be int64");
  if (!(time_axis == 0 && batch_axis == 1) && !(time_axis == 1 && batch_axis == 0))
    return invalid_model("ReverseSequence: time_axis and batch_axis must be 0 and 1");
  *op = std::make_unique<ReverseSequenceOp>(static_cast<int>(time_axis),
                                            size_of(desc.inputs[0].dtype));
  return {};
}

}  // namespace lepton
