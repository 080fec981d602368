// "lepton.MatMulNBits": float activations times weights of 4 or 8 bits in groups along k:
//
//     y = clamp(A · W + bias + R, min, max)     W[p][j] = (q[p][j] −
//     zero[p/group][j])·scale[p/group][j]
//   0 A      f32 [..., m, k] or [k]
//   1 W      constant u8 bytes: panels of nr columns (nr of the step's kernel), each
//            scale [groups][nr] f32, zero [groups][nr] f32, rows [k][nr·bits/8] as
//            dequantize_nbits.h has them, padded to whole cache lines
//   2 bias?  f32, n entries
//   3 R?     f32, the output's shape
//   attributes: k, n, bits (4 or 8), block_size (rows of a group); min, max (no clamp).
//   Kernel: a line of gemm_f32_kernels.inc.
//
// With few rows the product is bound by reading W: each block of a panel becomes floats in L1, is
// used by the one register tile and forgotten. With more rows a whole panel becomes floats in this
// thread's scratch, and all row blocks pass by it as in MatMul. Sums run over k in the same order
// either way.
#include <algorithm>
#include <memory>
#include <string>

#include "ops/dequantize_nbits.h"
#include "ops/gemm_driver.h"
#include "ops/matmul_shape.h"
#include "ops/op.h"
#include "ops/requantize.h"

namespace lepton {

#define LEPTON_DEQUANTIZE_NBITS(name, isa) void name(const DequantizeNBitsParams&);
#include "ops/dequantize_nbits_kernels.inc"
#undef LEPTON_DEQUANTIZE_NBITS

namespace {

struct DequantizeNBitsInfo {
  std::string_view name;
  Isa isa;
  DequantizeNBitsKernel run;
};
const DequantizeNBitsInfo kDequantize[] = {
#define LEPTON_DEQUANTIZE_NBITS(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/dequantize_nbits_kernels.inc"
#undef LEPTON_DEQUANTIZE_NBITS
};
constexpr KernelList<DequantizeNBitsInfo> kDequantizeList = {
    kDequantize, sizeof kDequantize / sizeof kDequantize[0]};

// Rows of a panel that become floats at a time on the stack.
constexpr size_t kBlockRows = 128;

struct BoundNBits {
  MatMulShape shape;
  GemmGrid grid;
  bool few_rows = false;
  size_t panel_bytes = 0;  // of a float panel in scratch, per thread
};

class MatMulNBitsOp final : public Op {
 public:
  Status init(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  Status read_sizes(const StepDesc& step);
  void run_chunk(const BoundNBits& bound, const RunArgs& args, const GemmChunk& chunk,
                 int thread) const;
  void few_rows(const RunArgs& args, size_t m, size_t panel) const;
  void dequantize(size_t panel, size_t first, size_t last, float* dst) const;

  std::string name_;
  size_t k_ = 0, n_ = 0, bits_ = 0, group_ = 0, groups_ = 0, nr_ = 0, stride_ = 0;
  const uint8_t* weights_ = nullptr;
  bool has_bias_ = false, has_residual_ = false;
  float min_ = 0.f, max_ = 0.f;
  const GemmF32KernelInfo* kernel_ = nullptr;
  EpilogueF32Kernel epilogue_ = nullptr;
  DequantizeNBitsKernel dequantize_ = nullptr;
};

Status MatMulNBitsOp::init(const StepDesc& step) {
  name_ = step.name;
  if (!step.has_input(0) || !step.has_input(1) || step.outputs.size() != 1)
    return invalid_model(name_ + ": needs A, W and one output");
  for (size_t i = 0; i < step.inputs.size(); ++i)
    if (i != 1 && step.has_input(i) && step.inputs[i].dtype != DType::kF32)
      return unsupported(name_ + ": operands of " + name_of(step.inputs[i].dtype));
  if (step.outputs[0] != DType::kF32) return unsupported(name_ + ": output is not float32");
  const auto list = gemm_f32_kernels();
  kernel_ = step.kernel.empty() ? list.best(step.isa) : list.find(step.kernel);
  if (kernel_ == nullptr)
    return invalid_model(name_ + ": kernel '" + std::string(step.kernel) + "' does not run here");
  if (kernel_->nr != 8 && kernel_->nr != 16)
    return unsupported(name_ + ": panels of " + std::to_string(kernel_->nr) + " columns");
  has_bias_ = step.has_input(2);
  has_residual_ = step.has_input(3);
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &min_, &max_));
  epilogue_ = best_epilogue_f32(step.isa);
  dequantize_ = kDequantizeList.best(step.isa)->run;
  return read_sizes(step);
}

Status MatMulNBitsOp::read_sizes(const StepDesc& step) {
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  const int64_t k = step.attrs->i("k"), n = step.attrs->i("n");
  const int64_t bits = step.attrs->i("bits"), group = step.attrs->i("block_size");
  if (k < 1 || k > kMaxSize || n < 1 || n > kMaxSize || group < 1 || group > kMaxSize)
    return invalid_model(name_ + ": impossible sizes");
  if (bits != 4 && bits != 8) return unsupported(name_ + ": weights of neither 4 nor 8 bits");
  k_ = static_cast<size_t>(k), n_ = static_cast<size_t>(n);
  bits_ = static_cast<size_t>(bits), group_ = static_cast<size_t>(group);
  nr_ = static_cast<size_t>(kernel_->nr);
  groups_ = ceil_div(k_, group_);
  stride_ = round_up(groups_ * nr_ * 2 * sizeof(float) + k_ * nr_ * bits_ / 8, kCacheLine);
  const TensorInfo& w = step.inputs[1];
  if (!w.constant || w.dtype != DType::kU8)
    return invalid_model(name_ + ": packed operand is not a constant");
  const size_t held = static_cast<size_t>(w.shape.elements()), panels = ceil_div(n_, nr_);
  if (held / panels != stride_ || held % panels != 0)
    return invalid_model(name_ + ": packed operand holds " + std::to_string(held) + " bytes");
  weights_ = static_cast<const uint8_t*>(w.data);
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
  const size_t m = bound.shape.m, panels = ceil_div(n_, nr_);
  bound.few_rows = m <= static_cast<size_t>(kernel_->mr);
  bound.grid = gemm_grid(m, panels, kernel_->mr, k_ * sizeof(float), context.threads());
  if (!bound.few_rows && bound.grid.chunks() != 0) {
    bound.panel_bytes = round_up(gemm_panel_stride(*kernel_, k_) * sizeof(float), kCacheLine);
    context.set_scratch(bound.panel_bytes * static_cast<size_t>(context.threads()));
  }
  context.set_run([this, bound](const RunArgs& args) {
    args.parallel.loop(bound.grid.chunks(), [&](int64_t i, int thread) {
      run_chunk(bound, args, bound.grid.chunk(i), thread);
    });
    return Status();
  });
  return {};
}

// Rows [first, last) of a panel, group by group.
void MatMulNBitsOp::dequantize(size_t panel, size_t first, size_t last, float* dst) const {
  const uint8_t* const start = weights_ + panel * stride_;
  const auto* const scale = reinterpret_cast<const float*>(start);
  const float* const zero_point = scale + groups_ * nr_;
  const size_t row_bytes = nr_ * bits_ / 8;
  const uint8_t* const rows = start + groups_ * nr_ * 2 * sizeof(float);
  for (size_t p = first; p < last;) {
    const size_t group = p / group_;
    const size_t end = std::min(last, (group + 1) * group_);
    dequantize_({end - p, nr_, bits_, rows + p * row_bytes, scale + group * nr_,
                 zero_point + group * nr_, dst + (p - first) * nr_});
    p = end;
  }
}

void MatMulNBitsOp::few_rows(const RunArgs& args, size_t m, size_t panel) const {
  alignas(kCacheLine) float block[kBlockRows * kMaxNr];
  alignas(kCacheLine) float acc[kMaxMr * kMaxNr];
  for (size_t p = 0; p < k_; p += kBlockRows) {
    const size_t last = std::min(k_, p + kBlockRows);
    dequantize(panel, p, last, block);
    kernel_->run({m, last - p, args.input<float>(0) + p, k_, block, acc, p > 0});
  }
  const size_t j = panel * nr_;
  EpilogueF32Params out = {};
  out.m = m;
  out.n = std::min(nr_, n_ - j);
  out.acc = acc;
  out.acc_stride = nr_;
  out.bias = has_bias_ ? args.input<float>(2) + j : nullptr;
  out.residual = has_residual_ ? args.input<float>(3) + j : nullptr;
  out.residual_stride = n_;
  out.min = min_;
  out.max = max_;
  out.dst = args.output<float>(0) + j;
  out.dst_stride = n_;
  epilogue_(out);
}

void MatMulNBitsOp::run_chunk(const BoundNBits& bound, const RunArgs& args, const GemmChunk& chunk,
                              int thread) const {
  if (bound.few_rows) {
    for (size_t panel = chunk.first; panel < chunk.last; ++panel)
      few_rows(args, bound.shape.m, panel);
    return;
  }
  auto* const panel_data =
      reinterpret_cast<float*>(args.scratch + static_cast<size_t>(thread) * bound.panel_bytes);
  for (size_t panel = chunk.first; panel < chunk.last; ++panel) {
    dequantize(panel, 0, k_, panel_data);
    const size_t j = panel * nr_, start = chunk.row * n_ + j;
    const float* const bias = has_bias_ ? args.input<float>(2) + j : nullptr;
    const GemmF32Plan plan = {kernel_,    epilogue_, k_,   std::min(nr_, n_ - j),
                              panel_data, bias,      min_, max_};
    GemmF32Block block = {};
    block.m = chunk.rows;
    block.rows = args.input<float>(0) + chunk.row * k_;
    block.row_stride = k_;
    block.last = 1;
    block.residual = has_residual_ ? args.input<float>(3) + start : nullptr;
    block.residual_stride = n_;
    block.dst = args.output<float>(0) + start;
    block.dst_stride = n_;
    gemm_f32_block(plan, block);
  }
}

}  // namespace

Status make_matmul_nbits(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<MatMulNBitsOp>();
  LEPTON_RETURN_IF_ERROR(made->init(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
