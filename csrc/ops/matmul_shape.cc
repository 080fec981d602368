#include "ops/matmul_shape.h"

#include <algorithm>
#include <string>

namespace lepton {
namespace {

Status mismatch(std::string_view step, const char* what, const Shape& a, const Shape& b) {
  return invalid_input(std::string(step) + ": " + what + " " + a.str() + " and " + b.str() +
                       " do not fit");
}

// Batch dimensions of a and b (all but the last two), right-aligned and broadcast.
bool broadcast_batch(const Shape& a, const Shape& b, MatMulShape* shape) {
  const int a_rank = std::max(a.rank - 2, 0), b_rank = std::max(b.rank - 2, 0);
  Shape& batch = shape->batch;
  batch.rank = std::max(a_rank, b_rank);
  size_t a_step = 1, b_step = 1;
  for (int i = batch.rank - 1; i >= 0; --i) {
    const int ia = i - (batch.rank - a_rank), ib = i - (batch.rank - b_rank);
    const int64_t da = ia < 0 ? 1 : a[ia], db = ib < 0 ? 1 : b[ib];
    if (da != db && da != 1 && db != 1) return false;
    batch[i] = da == 1 ? db : da;
    shape->a_step[i] = da == 1 ? 0 : a_step;
    shape->b_step[i] = db == 1 ? 0 : b_step;
    a_step *= static_cast<size_t>(da);
    b_step *= static_cast<size_t>(db);
  }
  shape->b_matrices = b_step;
  return true;
}

}  // namespace

void MatMulShape::locate(size_t i, size_t* a, size_t* b) const {
  *a = *b = 0;
  for (int d = batch.rank - 1; d >= 0; --d) {
    const size_t index = i % static_cast<size_t>(batch[d]);
    i /= static_cast<size_t>(batch[d]);
    *a += index * a_step[d];
    *b += index * b_step[d];
  }
}

Status matmul_shape(std::string_view step, const Shape& a, bool transposed_a, const Shape& b,
                    bool transposed_b, MatMulShape* shape) {
  if (a.rank < 1 || b.rank < 1) return mismatch(step, "scalar operands", a, b);
  *shape = {};
  const bool a_vector = a.rank == 1, b_vector = b.rank == 1;
  const int a_row = a.rank - 2 + (transposed_a ? 1 : 0),
            a_column = a.rank - 1 - (transposed_a ? 1 : 0);
  const int b_row = b.rank - 2 + (transposed_b ? 1 : 0),
            b_column = b.rank - 1 - (transposed_b ? 1 : 0);
  const int64_t m = a_vector ? 1 : a[a_row], k = a_vector ? a[0] : a[a_column];
  const int64_t n = b_vector ? 1 : b[b_column];
  if (k != (b_vector ? b[0] : b[b_row])) return mismatch(step, "operands of shapes", a, b);
  if (!broadcast_batch(a, b, shape)) return mismatch(step, "batches of", a, b);
  shape->output = shape->batch;
  if (!a_vector) shape->output.push_back(m);
  if (!b_vector) shape->output.push_back(n);
  if (!is_valid(shape->output)) return mismatch(step, "sizes of", a, b);
  shape->has_columns = !b_vector;
  shape->m = static_cast<size_t>(m);
  shape->k = static_cast<size_t>(k);
  shape->n = static_cast<size_t>(n);
  if (shape->b_matrices == 1 && (!transposed_a || a_vector)) {
    shape->m = shape->rows();
    shape->batch = {};
  }
  return {};
}

size_t RowBroadcast::offset(size_t row) const {
  size_t at = 0;
  for (int d = lead.rank - 1; d >= 0; --d) {
    at += row % static_cast<size_t>(lead[d]) * step[d];
    row /= static_cast<size_t>(lead[d]);
  }
  return at;
}

Status row_broadcast(std::string_view step, const Shape& operand, const MatMulShape& shape,
                     RowBroadcast* broadcast) {
  const Shape& output = shape.output;
  const int missing = output.rank - operand.rank;
  if (missing < 0) return mismatch(step, "output and residual", output, operand);
  size_t steps[kMaxRank] = {};
  size_t elements = 1;
  for (int i = operand.rank - 1; i >= 0; --i) {
    if (operand[i] != 1 && operand[i] != output[i + missing])
      return mismatch(step, "output and residual", output, operand);
    steps[i + missing] = operand[i] == 1 ? 0 : elements;
    elements *= static_cast<size_t>(operand[i]);
  }
  broadcast->lead = output;
  if (shape.has_columns) broadcast->column_step = steps[--broadcast->lead.rank];
  std::copy(steps, steps + kMaxRank, broadcast->step);
  const bool dense = operand.elements() == output.elements();
  const bool one_row =
      std::all_of(steps, steps + broadcast->lead.rank, [](size_t v) { return v == 0; });
  broadcast->direct = dense || (one_row && (broadcast->column_step == 1 || shape.n <= 1));
  broadcast->row_stride = dense ? shape.n : 0;
  return {};
}

}  // namespace lepton
