#include "ops/matmul_rhs.h"

namespace lepton {

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

Shape as_matrices(const Shape& b) {
  Shape matrices = b;
  if (b.rank == 1) matrices.push_back(1);
  return matrices;
}

}  // namespace lepton
