// "lepton.MatMulNBits" with the attribute digits: activations as fixed-point integers of one or
// three 8-bit digits, times 4-bit weights in groups along k.
//
//     y = clamp(A · W + bias + R, min, max)
//     W[p][j] = (value[p][j] − zero[p/group][j])·scale[p/group][j]
//   Inputs and sizes as in matmul_nbits.cc, with bits 4.
//   attributes: digits: 3, float32's precision within a group, or 1, 8-bit activations;
//   table: the values of indices as 16 integers −128 … 127, ascending integers −8 … 7 where absent;
//   k, n, block_size (at most kMaxGroupS8U4 rows), zero_points, min, max.
//   Kernel: a line of gemm_s8u4_kernels.inc, or with a table of gemm_s8lut4_kernels.inc.
//
// Rows of A are split into digits before the product, in the tiles that kernels read. Integers know
// neither infinities nor NaN: they count as zeros there, and their products are added to the sums
// that the kernel leaves, one by one, since they are rare.
#include "ops/matmul_u4.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "ops/gemm_driver.h"
#include "ops/gemm_nbits_kernels.h"
#include "ops/matmul_shape.h"
#include "ops/requantize.h"

namespace lepton {
namespace {

constexpr size_t kTableEntries = 16;
constexpr int32_t kLinearOffset = 8, kTableOffset = 128;
// Row of eight that bits 4s … 4s + 3 of a word hold, by row.
constexpr size_t kSlotOfRow[8] = {0, 4, 2, 6, 1, 5, 3, 7};

struct BoundU4 {
  MatMulShape shape;
  GemmGrid grid;
  // Offsets into scratch: digits at its start.
  size_t start = 0, scale = 0, sum = 0, finite = 0;
};

class MatMulU4Op final : public Op {
 public:
  Status init(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  Status read_sizes(const StepDesc& step);
  Status read_weights(const StepDesc& step);
  Status read_table(const StepDesc& step);
  bool zero_points() const { return layout_.zero_bytes != 0; }
  size_t width() const { return layout_.nr * kPanelsS8U4; }
  BoundU4 lay_out(size_t m) const;
  void split(const BoundU4& bound, const RunArgs& args, size_t row) const;
  void run_chunk(const BoundU4& bound, const RunArgs& args, const GemmChunk& chunk) const;
  GemmS8U4Params tile(const BoundU4& bound, const RunArgs& args, size_t row, size_t m) const;
  float weight(size_t p, size_t column) const;
  void add_special(const float* x, size_t column, size_t columns, float* dst) const;
  void store(const RunArgs& args, const float* acc, size_t row, size_t m, size_t column) const;

  std::string name_;
  size_t k_ = 0, n_ = 0, digits_ = 0;
  GemmNBitsLayout layout_;
  bool has_table_ = false;
  uint8_t table_[kTableEntries] = {};  // values + offset_
  int32_t offset_ = kLinearOffset;
  const uint8_t* weights_ = nullptr;
  bool has_bias_ = false, has_residual_ = false;
  float min_ = 0.f, max_ = 0.f;
  const GemmS8U4KernelInfo* kernel_ = nullptr;
  SplitRowKernel split_ = nullptr;
  EpilogueF32Kernel epilogue_ = nullptr;
};

Status MatMulU4Op::init(const StepDesc& step) {
  name_ = step.name;
  if (!step.has_input(0) || !step.has_input(1) || step.outputs.size() != 1)
    return invalid_model(name_ + ": needs A, W and one output");
  for (size_t i = 0; i < step.inputs.size(); ++i)
    if (i != 1 && step.has_input(i) && step.inputs[i].dtype != DType::kF32)
      return unsupported(name_ + ": operands of " + name_of(step.inputs[i].dtype));
  if (step.outputs[0] != DType::kF32) return unsupported(name_ + ": output is not float32");
  has_bias_ = step.has_input(2);
  has_residual_ = step.has_input(3);
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &min_, &max_));
  epilogue_ = best_epilogue_f32(step.isa);
  split_ = split_row_kernels().best(step.isa)->run;
  LEPTON_RETURN_IF_ERROR(read_table(step));
  LEPTON_RETURN_IF_ERROR(read_sizes(step));
  return read_weights(step);
}

Status MatMulU4Op::read_table(const StepDesc& step) {
  for (size_t i = 0; i < kTableEntries; ++i) table_[i] = static_cast<uint8_t>(i);
  const Attrs::Floats given = step.attrs->floats("table");
  has_table_ = given.data != nullptr;
  if (!has_table_) return {};
  if (given.size != kTableEntries) return invalid_model(name_ + ": table of another size than 16");
  offset_ = kTableOffset;
  for (size_t i = 0; i < kTableEntries; ++i) {
    const float value = given.data[i];
    if (!(value >= -128.f && value <= 127.f) || value != std::nearbyint(value))
      return unsupported(name_ + ": table of other than 8-bit integers");
    table_[i] = static_cast<uint8_t>(static_cast<int32_t>(value) + offset_);
  }
  return {};
}

Status MatMulU4Op::read_sizes(const StepDesc& step) {
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  const int64_t k = step.attrs->i("k"), n = step.attrs->i("n");
  const int64_t group = step.attrs->i("block_size"), digits = step.attrs->i("digits");
  if (k < 1 || k > kMaxSize || n < 1 || n > kMaxSize || group < 1 || group > kMaxSize)
    return invalid_model(name_ + ": impossible sizes");
  if (std::min(group, k) > static_cast<int64_t>(kMaxGroupS8U4))
    return unsupported(name_ + ": groups of more than " + std::to_string(kMaxGroupS8U4) + " rows");
  if (step.attrs->i("bits") != 4) return unsupported(name_ + ": digits with other than 4 bits");
  if (digits != 1 && digits != 3) return unsupported(name_ + ": neither 1 nor 3 digits");
  const auto list = has_table_ ? gemm_s8lut4_kernels() : gemm_s8u4_kernels();
  kernel_ = step.kernel.empty() ? list.best(step.isa) : list.find(step.kernel);
  if (kernel_ == nullptr)
    return invalid_model(name_ + ": kernel '" + std::string(step.kernel) + "' does not run here");
  k_ = static_cast<size_t>(k), n_ = static_cast<size_t>(n), digits_ = static_cast<size_t>(digits);
  layout_ = gemm_nbits_layout(static_cast<size_t>(kernel_->nr), static_cast<size_t>(kernel_->kr),
                              k_, static_cast<size_t>(group), 4, step.attrs->i("zero_points") != 0);
  return {};
}

Status MatMulU4Op::read_weights(const StepDesc& step) {
  const TensorInfo& w = step.inputs[1];
  if (!w.constant || w.dtype != DType::kU8)
    return invalid_model(name_ + ": packed operand is not a constant");
  const size_t held = static_cast<size_t>(w.shape.elements());
  const size_t panels = ceil_div(n_, layout_.nr);
  if (held / panels != layout_.panel_bytes || held % panels != 0)
    return invalid_model(name_ + ": packed operand holds " + std::to_string(held) + " bytes");
  weights_ = static_cast<const uint8_t*>(w.data);
  return {};
}

BoundU4 MatMulU4Op::lay_out(size_t m) const {
  const size_t entries = m * layout_.groups;
  BoundU4 bound;
  bound.start = round_up(m * layout_.k_padded * digits_, kCacheLine);
  bound.scale = bound.start + round_up(entries * digits_ * sizeof(int32_t), kCacheLine);
  bound.sum = bound.scale + round_up(entries * sizeof(float), kCacheLine);
  bound.finite = bound.sum + (zero_points() ? round_up(entries * sizeof(float), kCacheLine) : 0);
  return bound;
}

Status MatMulU4Op::bind(BindContext& context) const {
  Shape b;
  b.push_back(static_cast<int64_t>(k_));
  b.push_back(static_cast<int64_t>(n_));
  MatMulShape shape;
  LEPTON_RETURN_IF_ERROR(matmul_shape(name_, context.input(0).shape, false, b, false, &shape));
  if (has_bias_ && context.input(2).shape.elements() != static_cast<int64_t>(n_))
    return invalid_input(name_ + ": bias does not hold n entries");
  if (has_residual_ && !(context.input(3).shape == shape.output))
    return invalid_input(name_ + ": residual of shape " + context.input(3).shape.str());
  LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.output));
  BoundU4 bound = lay_out(shape.m);
  bound.shape = shape;
  bound.grid =
      gemm_grid(shape.m, ceil_div(n_, width()), kernel_->mr, k_ * digits_, context.threads());
  context.set_scratch(bound.finite + shape.m);
  context.set_run([this, bound](const RunArgs& args) {
    args.parallel.loop(static_cast<int64_t>(bound.shape.m),
                       [&](int64_t i, int) { split(bound, args, static_cast<size_t>(i)); });
    args.parallel.loop(bound.grid.chunks(),
                       [&](int64_t i, int) { run_chunk(bound, args, bound.grid.chunk(i)); });
    return Status();
  });
  return {};
}

// The operands of the tile of m rows that begins at `row`, in scratch.
GemmS8U4Params MatMulU4Op::tile(const BoundU4& bound, const RunArgs& args, size_t row,
                                size_t m) const {
  const size_t entry = row * layout_.groups;
  std::byte* const scratch = args.scratch;
  GemmS8U4Params params = {};
  params.m = m;
  params.digits = digits_;
  params.k = layout_.k_padded;
  params.group = layout_.padded_group;
  params.panel_stride = layout_.panel_bytes;
  params.lhs = reinterpret_cast<const int8_t*>(scratch) + row * layout_.k_padded * digits_;
  params.start = reinterpret_cast<const int32_t*>(scratch + bound.start) + entry * digits_;
  params.lhs_scale = reinterpret_cast<const float*>(scratch + bound.scale) + entry;
  params.lhs_sum = reinterpret_cast<const float*>(scratch + bound.sum) + entry;
  params.table = table_;
  return params;
}

void MatMulU4Op::split(const BoundU4& bound, const RunArgs& args, size_t row) const {
  const size_t mr = static_cast<size_t>(kernel_->mr), first = row / mr * mr, i = row - first;
  const size_t m = std::min(mr, bound.shape.m - first), entry = first * layout_.groups + i;
  std::byte* const scratch = args.scratch;
  auto* const digits = reinterpret_cast<int8_t*>(scratch) + first * layout_.k_padded * digits_;
  auto* const sums = reinterpret_cast<float*>(scratch + bound.sum);
  SplitRowParams params = {};
  params.digits = digits_;
  params.k = k_;
  params.group = layout_.group;
  params.padded_group = layout_.padded_group;
  params.x = args.input<float>(0) + row * k_;
  params.dst = digits + i * digits_ * 8;
  params.dst_stride = m * digits_ * 8;
  params.offset = offset_;
  params.start = reinterpret_cast<int32_t*>(scratch + bound.start) + entry * digits_;
  params.start_stride = m * digits_;
  params.scale = reinterpret_cast<float*>(scratch + bound.scale) + entry;
  params.sum = zero_points() ? sums + entry : nullptr;
  params.scale_stride = m;
  reinterpret_cast<bool*>(scratch + bound.finite)[row] = split_(params);
}

// What element [p][column] of W means.
float MatMulU4Op::weight(size_t p, size_t column) const {
  const size_t group = p / layout_.group, r = p - group * layout_.group, j = column % layout_.nr;
  const uint8_t* const panel = weights_ + column / layout_.nr * layout_.panel_bytes;
  const size_t row_bytes = layout_.nr / 2;
  const uint8_t* const record =
      panel + layout_.zero_bytes +
      group * (layout_.nr * sizeof(float) + layout_.padded_group * row_bytes);
  const uint8_t* const word = record + layout_.nr * sizeof(float) + (r / 8 * layout_.nr + j) * 4;
  const size_t slot = kSlotOfRow[r % 8];
  const unsigned q = slot % 2 == 0 ? word[slot / 2] & 15u : word[slot / 2] >> 4;
  float value = static_cast<float>(table_[q] - offset_);
  if (zero_points())
    value -= static_cast<float>(reinterpret_cast<const int8_t*>(panel)[group * layout_.nr + j]);
  return value * reinterpret_cast<const float*>(record)[j];
}

// Adds to one row of the product what its elements that are not finite contribute.
void MatMulU4Op::add_special(const float* x, size_t column, size_t columns, float* dst) const {
  for (size_t p = 0; p < k_; ++p)
    if (!std::isfinite(x[p]))
      for (size_t j = 0; j < columns; ++j) dst[j] += x[p] * weight(p, column + j);
}

void MatMulU4Op::store(const RunArgs& args, const float* acc, size_t row, size_t m,
                       size_t column) const {
  const size_t start = row * n_ + column;
  EpilogueF32Params out = {};
  out.m = m;
  out.n = std::min(width(), n_ - column);
  out.acc = acc;
  out.acc_stride = width();
  out.bias = has_bias_ ? args.input<float>(2) + column : nullptr;
  out.residual = has_residual_ ? args.input<float>(3) + start : nullptr;
  out.residual_stride = n_;
  out.min = min_;
  out.max = max_;
  out.dst = args.output<float>(0) + start;
  out.dst_stride = n_;
  epilogue_(out);
}

void MatMulU4Op::run_chunk(const BoundU4& bound, const RunArgs& args,
                           const GemmChunk& chunk) const {
  alignas(kCacheLine) float acc[kMaxMr * kMaxNr];
  const size_t mr = static_cast<size_t>(kernel_->mr);
  const bool* const finite = reinterpret_cast<const bool*>(args.scratch + bound.finite);
  for (size_t c = chunk.first; c < chunk.last; ++c) {
    const size_t column = c * width(), columns = std::min(width(), n_ - column);
    const uint8_t* const panel = weights_ + c * kPanelsS8U4 * layout_.panel_bytes;
    for (size_t i = 0; i < chunk.rows; i += mr) {
      const size_t row = chunk.row + i, m = std::min(mr, chunk.rows - i);
      GemmS8U4Params params = tile(bound, args, row, m);
      params.panels = ceil_div(columns, layout_.nr);
      params.zero = zero_points() ? reinterpret_cast<const int8_t*>(panel) : nullptr;
      params.weights = panel + layout_.zero_bytes;
      params.dst = acc;
      kernel_->run(params);
      for (size_t r = row; r < row + m; ++r)
        if (!finite[r])
          add_special(args.input<float>(0) + r * k_, column, columns, acc + (r - row) * width());
      store(args, acc, row, m, column);
    }
  }
}

}  // namespace

Status make_matmul_u4(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<MatMulU4Op>();
  LEPTON_RETURN_IF_ERROR(made->init(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
