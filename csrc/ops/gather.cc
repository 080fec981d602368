// Gather, GatherElements and GatherND. An index out of range fails the run; its output is left as
// it was.
#include <cstring>

#include "ops/indexing.h"
#include "ops/movement.h"

namespace lepton {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;

// Runs of 1, 2, 4 and 8 bytes move without a call.
inline void copy_run(char* dst, const char* src, int64_t bytes) {
  switch (bytes) {
    case 1: *dst = *src; break;
    case 2: std::memcpy(dst, src, 2); break;
    case 4: std::memcpy(dst, src, 4); break;
    case 8: std::memcpy(dst, src, 8); break;
    default: std::memcpy(dst, src, static_cast<size_t>(bytes)); break;
  }
}

class GatherOp final : public Op {
 public:
  GatherOp(int64_t axis, size_t element_size, DType index_dtype)
      : axis_(axis), element_size_(static_cast<int64_t>(element_size)), index_dtype_(index_dtype) {}

  Status bind(BindContext& context) const override {
    const Shape& data = context.input(0).shape;
    const Shape& indices = context.input(1).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, data.rank, &axis));
    if (data.rank - 1 + indices.rank > kMaxRank) return unsupported("Gather: rank above 8");
    Shape to = Shape::of(data.dims, axis);
    for (int64_t d : indices) to.push_back(d);
    for (int i = axis + 1; i < data.rank; ++i) to.push_back(data[i]);
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    if (to.elements() == 0) return nothing_to_run(context);

    const int64_t outer = data.product(0, axis), size = data[axis], count = indices.elements();
    const int64_t run = data.product(axis + 1, data.rank) * element_size_;
    context.set_run([=, dtype = index_dtype_](const RunArgs& args) -> Status {
      const IndexReader reader(args.in[1], dtype);
      RangeFailure failure;
      const char* src = args.input<char>(0);
      char* dst = args.output<char>(0);
      parallel_ranges(args.parallel, outer * count, kTaskBytes / run, [&](int64_t i, int64_t end) {
        for (; i < end; ++i) {
          const int64_t at = reader.position(i % count, size);
          if (at < 0) return failure.report();
          copy_run(dst + i * run, src + (i / count * size + at) * run, run);
        }
      });
      return failure.status("Gather");
    });
    return {};
  }

 private:
  int64_t axis_, element_size_;
  DType index_dtype_;
};

// dst[i0][..][ia][..] = data[i0][..][indices[i0][..][ia][..]][..]
class GatherElementsOp final : public Op {
 public:
  GatherElementsOp(int64_t axis, size_t element_size, DType index_dtype)
      : axis_(axis), element_size_(element_size), index_dtype_(index_dtype) {}

  Status bind(BindContext& context) const override {
    const Shape data = context.input(0).shape;
    const Shape to = context.input(1).shape;
    int axis = 0;
    LEPTON_RETURN_IF_ERROR(normalize_axis(axis_, data.rank, &axis));
    if (to.rank != data.rank)
      return invalid_input("GatherElements: indices must have the rank of data");
    for (int i = 0; i < to.rank; ++i)
      if (i != axis && to[i] > data[i])
        return invalid_input("GatherElements: indices " + to.str() + " exceed data " + data.str());
    LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    if (to.elements() == 0) return nothing_to_run(context);
    context.set_run([=, size = element_size_, dtype = index_dtype_](const RunArgs& args) -> Status {
      return with_element_type(
          size, [&](auto zero) { return run<decltype(zero)>(args, data, to, axis, dtype); });
    });
    return {};
  }

 private:
  template <typename T>
  static Status run(const RunArgs& args, const Shape& data, const Shape& to, int axis,
                    DType index_dtype) {
    const Strides strides = strides_of(data);
    const IndexReader reader(args.in[1], index_dtype);
    RangeFailure failure;
    const int last = to.rank - 1;
    const int64_t row = to[last];
    const int64_t step = axis == last ? 0 : 1;  // of data along the row
    const T* src = args.input<T>(0);
    T* dst = args.output<T>(0);
    parallel_ranges(args.parallel, to.product(0, last), 4096 / row, [&](int64_t r, int64_t end) {
      for (; r < end; ++r) {
        int64_t rest = r, base = 0;
        for (int d = last - 1; d >= 0; --d) {
          if (d != axis) base += rest % to[d] * strides[d];
          rest /= to[d];
        }
        for (int64_t j = 0; j < row; ++j) {
          const int64_t at = reader.position(r * row + j, data[axis]);
          if (at < 0) return failure.report();
          dst[r * row + j] = src[base + at * strides[axis] + j * step];
        }
      }
    });
    return failure.status("GatherElements");
  }

  int64_t axis_;
  size_t element_size_;
  DType index_dtype_;
};

class GatherNdOp final : public Op {
 public:
  GatherNdOp(int64_t batch_dims, size_t element_size, DType index_dtype)
      : batch_dims_(batch_dims),
        element_size_(static_cast<int64_t>(element_size)),
        index_dtype_(index_dtype) {}

  Status bind(BindContext& context) const override {
    const Shape data = context.input(0).shape;
    const Shape indices = context.input(1).shape;
    if (data.rank < 1 || indices.rank < 1) return invalid_input("GatherND: operands need rank 1");
    if (batch_dims_ >= data.rank || batch_dims_ >= indices.rank)
      return invalid_model("GatherND: batch_dims is too large");
    const int batch = static_cast<int>(batch_dims_);
    for (int i = 0; i < batch; ++i)
      if (data[i] != indices[i]) return invalid_input("GatherND: batch dimensions differ");
    if (indices[indices.rank - 1] > data.rank - batch)
      return invalid_input("GatherND: an index tuple is longer than data's rank");
    const int depth = static_cast<int>(indices[indices.rank - 1]);
    if (indices.rank - 1 + data.rank - batch - depth > kMaxRank)
      return unsupported("GatherND: rank above 8");
    Shape to = Shape::of(indices.dims, indices.rank - 1);
    for (int i = batch + depth; i < data.rank; ++i) to.push_back(data[i]);
    LEPTON_RETURN_IF_ERROR(check_shape(to));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, to));
    if (to.elements() == 0) return nothing_to_run(context);

    const int64_t per_batch = indices.product(batch, indices.rank - 1);
    const int64_t tuples = indices.product(0, indices.rank - 1);
    const int64_t run = data.product(batch + depth, data.rank) * element_size_;
    const int64_t batch_size = data.product(batch, data.rank) * element_size_;
    context.set_run([=, dtype = index_dtype_](const RunArgs& args) -> Status {
      const IndexReader reader(args.in[1], dtype);
      RangeFailure failure;
      const char* src = args.input<char>(0);
      char* dst = args.output<char>(0);
      parallel_ranges(args.parallel, tuples, kTaskBytes / run, [&](int64_t t, int64_t end) {
        for (; t < end; ++t) {
          int64_t offset = 0;
          for (int d = 0; d < depth; ++d) {
            const int64_t at = reader.position(t * depth + d, data[batch + d]);
            if (at < 0) return failure.report();
            offset = offset * data[batch + d] + at;
          }
          copy_run(dst + t * run, src + t / per_batch * batch_size + offset * run, run);
        }
      });
      return failure.status("GatherND");
    });
    return {};
  }

 private:
  int64_t batch_dims_, element_size_;
  DType index_dtype_;
};

Status check_gather(const StepDesc& desc) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 2, 2));
  LEPTON_RETURN_IF_ERROR(check_same_dtype(desc, 0, 0));
  return check_index_dtype(desc, 1);
}

}  // namespace

Status make_gather(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_gather(desc));
  *op = std::make_unique<GatherOp>(desc.attrs->i("axis"), size_of(desc.inputs[0].dtype),
                                   desc.inputs[1].dtype);
  return {};
}

Status make_gather_elements(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_gather(desc));
  *op = std::make_unique<GatherElementsOp>(desc.attrs->i("axis"), size_of(desc.inputs[0].dtype),
                                           desc.inputs[1].dtype);
  return {};
}

Status make_gather_nd(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_gather(desc));
  if (desc.inputs[1].dtype != DType::kS64) return invalid_model("GatherND: indices must be int64");
  const int64_t batch_dims = desc.attrs->i("batch_dims");
  if (batch_dims < 0) return invalid_model("GatherND: batch_dims is negative");
  *op =
      std::make_unique<GatherNdOp>(batch_dims, size_of(desc.inputs[0].dtype), desc.inputs[1].dtype);
  return {};
}

}  // namespace lepton
