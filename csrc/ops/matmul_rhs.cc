#include "ops/matmul_rhs.h"

namespace lepton {
namespace {

// Operand `index` as bytes that `lower` packed.
Status take_bytes(const StepDesc& step, size_t index, MatMulRhs* rhs) {
  const TensorInfo& b = step.inputs[index];
  if (!b.constant || b.dtype != DType::kU8)
    return invalid_model("packed operand is not a constant");
  if (reinterpret_cast<uintptr_t>(b.data) % kCacheLine != 0)
    return invalid_model("packed operand is not aligned");
  LEPTON_RETURN_IF_ERROR(read_packed_shape(step, &rhs->shape));
  rhs->packed = static_cast<const std::byte*>(b.data);
  rhs->at_run_time = false;
  return {};
}

// Takes it for a kernel whose packed operands differ in nothing but their size.
template <typename Kernel>
Status take_sized(const StepDesc& step, size_t index, const Kernel& kernel, MatMulRhs* rhs) {
  size_t one = 0, all = 0;
  LEPTON_RETURN_IF_ERROR(take_bytes(step, index, rhs));
  LEPTON_RETURN_IF_ERROR(packed_stack_size(kernel, rhs->shape, false, &one, &all));
  const size_t bytes = static_cast<size_t>(step.inputs[index].shape.elements());
  if (bytes == all) return {};
  return invalid_model("packed operand holds " + std::to_string(bytes) + " bytes where " +
                       kernel.name + " needs " + std::to_string(all));
}

}  // namespace

OwnedBytes allocate_bytes(size_t bytes) {
  const size_t room = round_up(bytes == 0 ? 1 : bytes, kCacheLine);
  return OwnedBytes(static_cast<std::byte*>(std::aligned_alloc(kCacheLine, room)));
}

Status read_packed_shape(const StepDesc& step, Shape* shape) {
  const Attrs::Ints batch = step.attrs->ints("batch");
  if (batch.size > kMaxRank - 2)
    return invalid_model("packed operand has too many batch dimensions");
  *shape = Shape::of(batch.data, static_cast<int>(batch.size));
  shape->push_back(step.attrs->i("k", -1));
  shape->push_back(step.attrs->i("n", -1));
  if (!is_valid(*shape)) return invalid_model("packed operand has shape " + shape->str());
  return {};
}

Status take_packed(const StepDesc& step, size_t index, const GemmF32KernelInfo& kernel,
                   MatMulRhs* rhs) {
  return take_sized(step, index, kernel, rhs);
}

Status take_packed(const StepDesc& step, size_t index, const GemmBf16KernelInfo& kernel,
                   MatMulRhs* rhs) {
  return take_sized(step, index, kernel, rhs);
}

Status take_packed(const StepDesc& step, size_t index, const GemmS8KernelInfo& kernel,
                   MatMulRhs* rhs) {
  LEPTON_RETURN_IF_ERROR(take_bytes(step, index, rhs));
  const Shape& shape = rhs->shape;
  const size_t bytes = static_cast<size_t>(step.inputs[index].shape.elements());
  return check_packed_s8(kernel, shape[shape.rank - 2], shape[shape.rank - 1],
                         static_cast<size_t>(shape.product(0, shape.rank - 2)), rhs->packed, bytes,
                         &rhs->layout);
}

Shape as_matrices(const Shape& b) {
  Shape matrices = b;
  if (b.rank == 1) matrices.push_back(1);
  return matrices;
}

}  // namespace lepton
