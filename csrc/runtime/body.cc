#include "runtime/body.h"

#include <algorithm>
#include <cstring>

namespace lepton {

size_t bytes_of(const Shape& shape, DType dtype) {
  return static_cast<size_t>(shape.elements()) * size_of(dtype);
}

BodyRun::BodyRun(Executor& executor, DynamicArgs& args)
    : executor_(executor),
      args_(args),
      to_(executor.plan().outputs.size()),
      spare_(executor.plan().outputs.size()) {}

BodyRun::~BodyRun() {
  if (context_) executor_.release(std::move(context_));
}

DType BodyRun::output_dtype(size_t i) const {
  const Plan& plan = executor_.plan();
  return plan.tensors[static_cast<size_t>(plan.outputs[i])].info.dtype;
}

void BodyRun::clear() {
  shapes_.clear();
  inputs_.clear();
}

void BodyRun::add_input(const Shape& shape, const void* data) {
  shapes_.push_back(shape);
  inputs_.push_back(data);
}

Status BodyRun::bind() {
  std::fill(to_.begin(), to_.end(), nullptr);
  if (context_ && context_->input_shapes() == shapes_) return {};
  context_.reset();  // shapes that change once change again: what is left of them is not kept
  return executor_.acquire(shapes_, &context_);
}

Status BodyRun::run() {
  for (size_t i = 0; i < to_.size(); ++i) {
    const Shape* shape = output_shape(i);
    if (shape == nullptr || to_[i] != nullptr) continue;
    const size_t bytes = bytes_of(*shape, output_dtype(i));
    LEPTON_RETURN_IF_ERROR(spare_[i].reserve(std::max<size_t>(bytes, 1)));
    to_[i] = spare_[i].data();
  }
  const Interrupt interrupt{
      [](void* args) { return static_cast<DynamicArgs*>(args)->interrupted(); }, &args_};
  Status status = context_->run(inputs_.data(), to_.data(), interrupt);
  if (!status.ok()) context_.reset();
  return status;
}

Status store_output(DynamicArgs& args, int index, DType dtype, const Shape& shape,
                    const void* data) {
  void* to = args.allocate(index, dtype, shape);
  if (to == nullptr) return internal_error("an output has an unexpected dtype or size");
  const size_t bytes = bytes_of(shape, dtype);
  if (bytes != 0) std::memcpy(to, data, bytes);
  return {};
}

}  // namespace lepton
