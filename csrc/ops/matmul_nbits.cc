// "lepton.MatMulNBits": float activations times weights of 4 or 8 bits in groups along k:
//
//     y = clamp(A · W + bias + R, min, max)
//     W[p][j] = (value[p][j] − zero[p/group][j])·scale[p/group][j]
//   0 A      f32 [..., m, k] or [k]
//   1 W      constant u8 bytes, packed as gemm_nbits_kernels.h has them
//   2 bias?  f32, n entries
//   3 R?     f32, the output's shape
//   attributes: digits (where present: matmul_u4.cc's), k, n, bits (4 or 8), block_size (rows of a
//   group), zero_points (0: all are 0); table: the values of 4-bit indices, 16 bfloat16 values as
//   floats, ascending integers −8 … 7 where absent; min, max (no clamp). Kernel: a line of
//   gemm_f32lut4_kernels.inc (4 bits) or gemm_f32s8_kernels.inc (8 bits).
//
// W is read once for every register tile of rows and never becomes floats in memory: with few rows
// the product is bound by that one read. Where groups are padded, or have zero points, rows of A
// are copied with their padding, and the sums of their groups taken, before the product.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "ops/gemm_driver.h"
#include "ops/gemm_nbits_kernels.h"
#include "ops/matmul_shape.h"
#include "ops/matmul_u4.h"
#include "ops/op.h"
#include "ops/requantize.h"

namespace lepton {
namespace {

constexpr size_t kTableEntries = 16;

struct BoundNBits {
  MatMulShape shape;
  GemmGrid grid;
  size_t row_bytes = 0;  // scratch of the padded rows, all together
};

class MatMulNBitsOp final : public Op {
 public:
  Status init(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  Status read_sizes(const StepDesc& step);
  Status read_table(const StepDesc& step);
  bool padded() const { return layout_.k_padded != k_; }
  bool zero_points() const { return layout_.zero_bytes != 0; }
  void prepare(const BoundNBits& bound, const RunArgs& args) const;
  void run_chunk(const BoundNBits& bound, const RunArgs& args, const GemmChunk& chunk) const;
  void store(const RunArgs& args, const float* acc, size_t row, size_t m, size_t panel) const;

  std::string name_;
  size_t k_ = 0, n_ = 0;
  GemmNBitsLayout layout_;
  float table_[kTableEntries] = {};
  const uint8_t* weights_ = nullptr;
  bool has_bias_ = false, has_residual_ = false;
  float min_ = 0.f, max_ = 0.f;
  const GemmNBitsKernelInfo* kernel_ = nullptr;
  EpilogueF32Kernel epilogue_ = nullptr;
};

Status MatMulNBitsOp::init(const StepDesc& step) {
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
  LEPTON_RETURN_IF_ERROR(read_sizes(step));
  return read_table(step);
}

Status MatMulNBitsOp::read_sizes(const StepDesc& step) {
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  const int64_t k = step.attrs->i("k"), n = step.attrs->i("n");
  const int64_t bits = step.attrs->i("bits"), group = step.attrs->i("block_size");
  if (k < 1 || k > kMaxSize || n < 1 || n > kMaxSize || group < 1 || group > kMaxSize)
    return invalid_model(name_ + ": impossible sizes");
  if (bits != 4 && bits != 8) return unsupported(name_ + ": weights of neither 4 nor 8 bits");
  const auto list = bits == 4 ? gemm_f32lut4_kernels() : gemm_f32s8_kernels();
  kernel_ = step.kernel.empty() ? list.best(step.isa) : list.find(step.kernel);
  if (kernel_ == nullptr)
    return invalid_model(name_ + ": kernel '" + std::string(step.kernel) + "' does not run here");
  k_ = static_cast<size_t>(k), n_ = static_cast<size_t>(n);
  layout_ = gemm_nbits_layout(static_cast<size_t>(kernel_->nr), static_cast<size_t>(kernel_->kr),
                              k_, static_cast<size_t>(group), static_cast<size_t>(bits),
                              step.attrs->i("zero_points") != 0);
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

Status MatMulNBitsOp::read_table(const StepDesc& step) {
  const Attrs::Floats given = step.attrs->floats("table");
  for (size_t i = 0; i < kTableEntries; ++i) table_[i] = static_cast<float>(i) - 8.f;
  if (given.data == nullptr) return {};
  if (given.size != kTableEntries) return invalid_model(name_ + ": table of another size than 16");
  std::copy_n(given.data, kTableEntries, table_);
  for (const float value : table_) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0xFFFFu) != 0) return unsupported(name_ + ": table of other than bfloat16 values");
  }
  return {};
}

Status MatMulNBitsOp::bind(BindContext& context) const {
  BoundNBits bound;
  Shape b;
  b.push_back(static_cast<int64_t>(k_));
  b.push_back(static_cast<int64_t>(n_));
  LEPTON_RETURN_IF_ERROR(
      matmul_shape(name_, context.input(0).shape, false, b, false, &bound.shape));
  if (has_bias_ && context.input(2).shape.elements() != static_cast<int64_t>(n_))
    return invalid_input(name_ + ": bias does not hold n entries");
  if (has_residual_ && !(context.input(3).shape == bound.shape.output))
    return invalid_input(name_ + ": residual of shape " + context.input(3).shape.str());
  LEPTON_RETURN_IF_ERROR(context.set_output(0, bound.shape.output));
  const size_t m = bound.shape.m;
  bound.grid =
      gemm_grid(m, ceil_div(n_, layout_.nr), kernel_->mr, k_ * sizeof(float), context.threads());
  if (padded()) bound.row_bytes = round_up(m * layout_.k_padded * sizeof(float), kCacheLine);
  const size_t sum_bytes = zero_points() ? m * layout_.groups * sizeof(float) : 0;
  context.set_scratch(bound.row_bytes + sum_bytes);
  context.set_run([this, bound](const RunArgs& args) {
    prepare(bound, args);
    args.parallel.loop(bound.grid.chunks(),
                       [&](int64_t i, int) { run_chunk(bound, args, bound.grid.chunk(i)); });
    return Status();
  });
  return {};
}

void MatMulNBitsOp::prepare(const BoundNBits& bound, const RunArgs& args) const {
  if (!padded() && !zero_points()) return;
  auto* const rows = reinterpret_cast<float*>(args.scratch);
  auto* const sums = reinterpret_cast<float*>(args.scratch + bound.row_bytes);
  args.parallel.loop(static_cast<int64_t>(bound.shape.m), [&](int64_t i, int) {
    const size_t row = static_cast<size_t>(i);
    const float* const src = args.input<float>(0) + row * k_;
    if (padded()) pad_groups(layout_, k_, src, rows + row * layout_.k_padded);
    if (zero_points()) sum_groups(layout_, k_, src, sums + row * layout_.groups);
  });
}

void MatMulNBitsOp::store(const RunArgs& args, const float* acc, size_t row, size_t m,
                          size_t panel) const {
  const size_t j = panel * layout_.nr, start = row * n_ + j;
  EpilogueF32Params out = {};
  out.m = m;
  out.n = std::min(layout_.nr, n_ - j);
  out.acc = acc;
  out.acc_stride = layout_.nr;
  out.bias = has_bias_ ? args.input<float>(2) + j : nullptr;
  out.residual = has_residual_ ? args.input<float>(3) + start : nullptr;
  out.residual_stride = n_;
  out.min = min_;
  out.max = max_;
  out.dst = args.output<float>(0) + start;
  out.dst_stride = n_;
  epilogue_(out);
}

void MatMulNBitsOp::run_chunk(const BoundNBits& bound, const RunArgs& args,
                              const GemmChunk& chunk) const {
  alignas(kCacheLine) float acc[kMaxMr * kMaxNr];
  const size_t mr = static_cast<size_t>(kernel_->mr);
  GemmNBitsParams params = {};
  params.k = layout_.k_padded;
  params.group = layout_.padded_group;
  params.lhs_stride = layout_.k_padded;
  params.sum_stride = layout_.groups;
  params.table = table_;
  params.dst = acc;
  const float* const rows =
      padded() ? reinterpret_cast<const float*>(args.scratch) : args.input<float>(0);
  const auto* const sums = reinterpret_cast<const float*>(args.scratch + bound.row_bytes);
  for (size_t panel = chunk.first; panel < chunk.last; ++panel) {
    const uint8_t* const start = weights_ + panel * layout_.panel_bytes;
    params.zero = zero_points() ? reinterpret_cast<const int8_t*>(start) : nullptr;
    params.weights = start + layout_.zero_bytes;
    for (size_t i = 0; i < chunk.rows; i += mr) {
      const size_t row = chunk.row + i;
      params.m = std::min(mr, chunk.rows - i);
      params.lhs = rows + row * layout_.k_padded;
      params.lhs_sum = sums + row * layout_.groups;
      kernel_->run(params);
      store(args, acc, row, params.m, panel);
    }
  }
}

}  // namespace

Status make_matmul_nbits(const StepDesc& step, std::unique_ptr<Op>* op) {
  if (step.attrs->has("digits")) return make_matmul_u4(step, op);
  auto made = std::make_unique<MatMulNBitsOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
