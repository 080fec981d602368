// The float32 half of gemm_sparse.h: register tiles of rows against groups of panels, and their
// epilogues.
#include <algorithm>
#include <string>
#include <vector>

#include "ops/gemm_f32_finish.h"
#include "ops/gemm_sparse.h"
#include "ops/sparse_blob.h"

namespace lepton {

#define LEPTON_GEMM_F32_SPARSE(name, isa, mr, nr) void name(const GemmF32SparseParams&);
#include "ops/gemm_f32_sparse_kernels.inc"
#undef LEPTON_GEMM_F32_SPARSE

namespace {

#define LEPTON_GEMM_F32_SPARSE(name, isa, mr, nr) \
  {#name, Isa::k_##isa, mr, nr, LEPTON_KERNEL_POINTER(isa, name)},
const GemmF32SparseKernelInfo kSparse[] = {
#include "ops/gemm_f32_sparse_kernels.inc"
};
#undef LEPTON_GEMM_F32_SPARSE

// One register tile of rows against the panels of one group of columns, and its epilogue.
class Tile {
 public:
  Tile(const GemmF32Plan& plan, const GemmF32Block& block) : plan_(plan), block_(block) {}

  // Panels [first, last), at most kGemmF32SparseColumns columns.
  void select(size_t first, size_t last) { first_ = first, last_ = last; }

  void run(size_t row, size_t rows) const {
    alignas(kCacheLine) float acc[kMaxMr * kGemmF32SparseColumns];
    const GemmF32Sparse& sparse = *plan_.sparse;
    const float* const lhs = block_.rows + row * block_.row_stride;
    sparse.kernel->run({rows, last_ - first_, lhs, block_.row_stride, sparse.starts + first_,
                        sparse.index, sparse.values, acc});
    const size_t nr = static_cast<size_t>(sparse.kernel->nr), column = first_ * nr;
    finish_f32(plan_, block_, row, rows, column, (last_ - first_) * nr, acc, kGemmF32SparseColumns);
  }

 private:
  const GemmF32Plan& plan_;
  const GemmF32Block& block_;
  size_t first_ = 0, last_ = 0;
};

}  // namespace

KernelList<GemmF32SparseKernelInfo> gemm_f32_sparse_kernels() {
  return {kSparse, sizeof kSparse / sizeof kSparse[0]};
}

bool find_sparse(std::string_view kernel, const GemmF32KernelInfo** shape) {
  static const std::vector<GemmF32KernelInfo> shapes = [] {
    std::vector<GemmF32KernelInfo> made;
    for (const GemmF32SparseKernelInfo& info : gemm_f32_sparse_kernels())
      made.push_back({info.name, info.isa, info.mr, info.nr, nullptr});
    return made;
  }();
  for (const GemmF32KernelInfo& dense : shapes)
    if (dense.name == kernel) *shape = &dense;
  return gemm_f32_sparse_kernels().describe(kernel) != nullptr;
}

Status take_sparse(std::string_view kernel, const TensorInfo& blob, size_t k, size_t n,
                   GemmF32Sparse* sparse) {
  const std::string name(kernel);
  sparse->kernel = gemm_f32_sparse_kernels().find(kernel);
  if (sparse->kernel == nullptr) return unsupported("kernel " + name + " cannot run here");
  if (!SparseBlob::is_one(blob))
    return invalid_model(name + ": the packed operand is not a constant");
  const size_t nr = static_cast<size_t>(sparse->kernel->nr), panels = ceil_div(n, nr);
  SparseBlob reader(blob);
  sparse->starts = reader.part<uint32_t>(panels + 1);
  if (sparse->starts == nullptr || !are_starts(sparse->starts, panels))
    return invalid_model(name + ": the packed operand does not fit its sizes");
  const size_t rows = sparse->starts[panels];
  sparse->index = reader.part<uint16_t>(rows);
  sparse->values = reader.part<float>(rows * nr);
  if (sparse->index == nullptr || sparse->values == nullptr || !reader.at_end())
    return invalid_model(name + ": the packed operand does not fit its sizes");
  for (size_t q = 0; q < rows; ++q)
    if (sparse->index[q] >= k) return invalid_model(name + ": a row lies beyond the matrix");
  return {};
}

void gemm_f32_sparse_block(const GemmF32Plan& plan, const GemmF32Block& block) {
  const size_t mr = static_cast<size_t>(plan.kernel->mr);
  const size_t group = kGemmF32SparseColumns / static_cast<size_t>(plan.kernel->nr);
  Tile tile(plan, block);
  for_each_sparse_tile(block, block.row_stride * sizeof(float), mr, 0, group, tile);
}

}  // namespace lepton
