#include "runtime/loop_state.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace lepton {

void Carried::give_to(BodyRun& body) const {
  for (const TensorInfo& t : current_) body.add_input(t.shape, t.data);
}

Status Carried::place_outputs(BodyRun& body, size_t first) {
  for (size_t i = 0; i < current_.size(); ++i) {
    const Shape* shape = body.output_shape(first + i);
    if (shape == nullptr) continue;
    const size_t bytes = bytes_of(*shape, body.output_dtype(first + i));
    LEPTON_RETURN_IF_ERROR(buffers_[i].write.reserve(std::max<size_t>(bytes, 1)));
    body.write_output(first + i, buffers_[i].write.data());
  }
  return {};
}

Status Carried::accept(const BodyRun& body, size_t first) {
  for (size_t i = 0; i < current_.size(); ++i) {
    const TensorInfo& made = body.output(first + i);
    Buffer& to = buffers_[i].write;
    if (made.data != to.data()) {
      const size_t bytes = bytes_of(made.shape, made.dtype);
      LEPTON_RETURN_IF_ERROR(to.reserve(std::max<size_t>(bytes, 1)));
      if (bytes != 0) std::memcpy(to.data(), made.data, bytes);
    }
    current_[i].shape = made.shape;
    std::swap(buffers_[i].read, to);
    current_[i].data = buffers_[i].read.data();
  }
  return {};
}

Status Carried::store(DynamicArgs& args, const std::vector<bool>& wanted) const {
  for (size_t i = 0; i < current_.size(); ++i) {
    const TensorInfo& t = current_[i];
    if (i < wanted.size() && wanted[i])
      LEPTON_RETURN_IF_ERROR(store_output(args, static_cast<int>(i), t.dtype, t.shape, t.data));
  }
  return {};
}

Status Stack::push(const TensorInfo& slice) {
  if (count_ == 0) shape_ = slice.shape;
  if (slice.shape != shape_)
    return invalid_input("a scan output was " + shape_.str() + ", then " + slice.shape.str());
  const size_t bytes = bytes_of(slice.shape, slice.dtype);
  if (used_ + bytes > memory_.capacity()) {
    Buffer larger;
    LEPTON_RETURN_IF_ERROR(larger.reserve(2 * (used_ + bytes)));
    if (used_ != 0) std::memcpy(larger.data(), memory_.data(), used_);
    memory_ = std::move(larger);
  }
  if (bytes != 0) std::memcpy(memory_.data() + used_, slice.data, bytes);
  used_ += bytes;
  ++count_;
  return {};
}

Status Stack::store(DynamicArgs& args, int index, const Shape& empty) const {
  const Shape& slice = count_ == 0 ? empty : shape_;
  if (slice.rank >= kMaxRank) return unsupported("a scan output of rank above 8");
  const int64_t rank = slice.rank + 1;
  const int64_t axis = axis_ < 0 ? axis_ + rank : axis_;
  if (axis < 0 || axis >= rank) return invalid_model("the axis of a scan output");
  Shape whole = Shape::of(slice.dims, static_cast<int>(axis));
  whole.push_back(count_);
  for (int i = static_cast<int>(axis); i < slice.rank; ++i) whole.push_back(slice[i]);
  auto* to = static_cast<std::byte*>(args.allocate(index, dtype_, whole));
  if (to == nullptr) return internal_error("a scan output has an unexpected dtype or size");
  if (used_ == 0) return {};
  const int64_t outer = slice.product(0, static_cast<int>(axis));
  const size_t run = bytes_of(slice, dtype_) / static_cast<size_t>(outer);
  for (int64_t t = 0; t < count_; ++t) {
    const int64_t place = reversed_ ? count_ - 1 - t : t;
    for (int64_t o = 0; o < outer; ++o)
      std::memcpy(to + static_cast<size_t>(o * count_ + place) * run,
                  memory_.data() + static_cast<size_t>(t * outer + o) * run, run);
  }
  return {};
}

}  // namespace lepton
