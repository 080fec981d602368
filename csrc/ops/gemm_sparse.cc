#include "ops/gemm_sparse.h"

#include <algorithm>
#include <string>
#include <vector>

#include "ops/sparse_blob.h"

namespace lepton {

#define LEPTON_GEMM_S8_SPARSE(name, isa, mr, nr) void name(const GemmS8SparseParams&);
#include "ops/gemm_s8_sparse_kernels.inc"
#undef LEPTON_GEMM_S8_SPARSE

namespace {

#define LEPTON_GEMM_S8_SPARSE(name, isa, mr, nr) \
  {#name, Isa::k_##isa, mr, nr, LEPTON_KERNEL_POINTER(isa, name)},
const GemmS8SparseKernelInfo kSparse[] = {
#include "ops/gemm_s8_sparse_kernels.inc"
};
#undef LEPTON_GEMM_S8_SPARSE

constexpr size_t kKr = 4;
// Columns that one epilogue call takes.
constexpr size_t kGroupColumns = kGemmSparseColumns;
// Rows of a register tile: those that L1 holds, since every panel reads them anywhere. Where these
// are too few to make good use of a register of weights, all that the kernel takes.
size_t tile_rows(size_t most, size_t row_bytes) {
  constexpr size_t kTileBytes = 32 * 1024, kFewestRows = 14;
  const size_t fitting = kTileBytes / std::max<size_t>(row_bytes, 1);
  return fitting < kFewestRows ? most : std::min(most, fitting);
}

EpilogueS8Params epilogue_of(const GemmS8Plan& plan, const GemmS8Block& block) {
  EpilogueS8Params out = {};
  out.acc_stride = kGroupColumns;
  out.residual_stride = block.residual_stride;
  out.r_signed = plan.r_signed;
  out.requantize = plan.requantize;
  out.min = plan.min;
  out.max = plan.max;
  out.dst_stride = block.dst_stride;
  return out;
}

// One register tile of rows against the panels of one group of columns, and its epilogue.
class Tile {
 public:
  Tile(const GemmS8Plan& plan, const GemmS8Block& block)
      : plan_(plan),
        block_(block),
        sparse_(*plan.sparse),
        nr_(static_cast<size_t>(sparse_.kernel->nr)),
        accumulate_(block.zero_points != nullptr),
        out_(epilogue_of(plan, block)) {}

  // Panels [first, last), at most kGroupColumns columns.
  void select(size_t first, size_t last) {
    first_ = first, last_ = last;
    column_ = first * nr_;
    out_.n = std::min(last * nr_, plan_.n) - column_;
    out_.scale = plan_.scale == nullptr ? nullptr : plan_.scale + column_;
    out_.bias = plan_.bias == nullptr ? nullptr : plan_.bias + column_;
    out_.float_bias = plan_.float_bias == nullptr ? nullptr : plan_.float_bias + column_;
    if (accumulate_ || plan_.zero_point == 0) return;
    for (size_t j = 0; j < out_.n; ++j) {
      const uint32_t bias = out_.bias == nullptr ? 0 : static_cast<uint32_t>(out_.bias[j]);
      bias_[j] = static_cast<int32_t>(bias - correction(plan_.zero_point, j));
    }
    out_.bias = bias_;
  }

  void run(size_t row, size_t rows) {
    alignas(kCacheLine) int32_t acc[kMaxMr * kGroupColumns];
    if (accumulate_) start(row, rows, acc);
    GemmS8SparseParams params = {};
    params.m = rows;
    params.lhs = static_cast<const uint8_t*>(block_.rows) + row * block_.row_stride;
    params.lhs_stride = block_.row_stride;
    params.accumulate = accumulate_;
    params.panels = last_ - first_;
    params.starts = sparse_.starts + first_;
    params.index = sparse_.index;
    params.values = sparse_.values;
    params.dst = acc;
    sparse_.kernel->run(params);
    const size_t residual = (row * block_.residual_stride + column_) * plan_.dst_size;
    const size_t dst = (row * block_.dst_stride + column_) * plan_.dst_size;
    out_.m = rows;
    out_.acc = acc;
    if (block_.row_scale != nullptr) out_.row_scale = block_.row_scale + row;
    if (block_.residual != nullptr)
      out_.residual = static_cast<const uint8_t*>(block_.residual) + residual;
    out_.dst = static_cast<uint8_t*>(block_.dst) + dst;
    plan_.epilogue(out_);
  }

 private:
  uint32_t correction(int32_t zero_point, size_t j) const {
    return static_cast<uint32_t>(zero_point) * static_cast<uint32_t>(sparse_.sums[column_ + j]);
  }
  // Rows that have zero points of their own start below zero.
  void start(size_t row, size_t rows, int32_t* acc) const {
    for (size_t i = 0; i < rows; ++i)
      for (size_t j = 0; j < (last_ - first_) * nr_; ++j)
        acc[i * kGroupColumns + j] =
            static_cast<int32_t>(0 - correction(block_.zero_points[row + i], j));
  }

  const GemmS8Plan& plan_;
  const GemmS8Block& block_;
  const GemmS8Sparse& sparse_;
  const size_t nr_;
  const bool accumulate_;
  EpilogueS8Params out_;
  size_t first_ = 0, last_ = 0, column_ = 0;
  int32_t bias_[kGroupColumns] = {};
};

}  // namespace

KernelList<GemmS8SparseKernelInfo> gemm_s8_sparse_kernels() {
  return {kSparse, sizeof kSparse / sizeof kSparse[0]};
}

bool find_sparse(std::string_view kernel, const GemmS8KernelInfo** shape) {
  static const std::vector<GemmS8KernelInfo> shapes = [] {
    std::vector<GemmS8KernelInfo> made;
    for (const GemmS8SparseKernelInfo& info : gemm_s8_sparse_kernels()) {
      GemmS8KernelInfo dense = {};
      dense.name = info.name;
      dense.isa = info.isa;
      dense.form = GemmS8Form::kU8;
      dense.mr = info.mr;
      dense.nr = dense.nv = info.nr;
      dense.kr = static_cast<int>(kKr);
      made.push_back(dense);
    }
    return made;
  }();
  for (const GemmS8KernelInfo& dense : shapes)
    if (dense.name == kernel) *shape = &dense;
  return gemm_s8_sparse_kernels().describe(kernel) != nullptr;
}

Status take_sparse(std::string_view kernel, const TensorInfo& blob, size_t k, size_t n,
                   GemmS8Sparse* sparse) {
  const std::string name(kernel);
  sparse->kernel = gemm_s8_sparse_kernels().find(kernel);
  if (sparse->kernel == nullptr) return unsupported("kernel " + name + " cannot run here");
  if (!SparseBlob::is_one(blob))
    return invalid_model(name + ": the packed operand is not a constant");
  const size_t nr = static_cast<size_t>(sparse->kernel->nr), panels = ceil_div(n, nr);
  SparseBlob reader(blob);
  sparse->starts = reader.part<uint32_t>(panels + 1);
  sparse->sums = reader.part<int32_t>(panels * nr);
  if (sparse->starts == nullptr || sparse->sums == nullptr || !are_starts(sparse->starts, panels))
    return invalid_model(name + ": the packed operand does not fit its sizes");
  const size_t quads = sparse->starts[panels];
  sparse->index = reader.part<uint16_t>(quads);
  sparse->values = reader.part<int8_t>(quads * nr * kKr);
  if (sparse->index == nullptr || sparse->values == nullptr || !reader.at_end())
    return invalid_model(name + ": the packed operand does not fit its sizes");
  const size_t limit = ceil_div(k, kKr);
  for (size_t q = 0; q < quads; ++q)
    if (sparse->index[q] >= limit) return invalid_model(name + ": a block lies beyond its rows");
  return {};
}

void gemm_s8_sparse_block(const GemmS8Plan& plan, const GemmS8Block& block) {
  const size_t most = static_cast<size_t>(plan.kernel->mr);
  const size_t mr = tile_rows(most, block.row_stride);
  const size_t group = kGroupColumns / static_cast<size_t>(plan.kernel->nr);
  Tile tile(plan, block);
  for_each_sparse_tile(block, block.row_stride, mr, std::min(most - mr, mr / 2), group, tile);
}

}  // namespace lepton
