// The float32 half of gemm_sparse.h: register tiles of rows against groups of panels, and their
// epilogues.
#include <algorithm>
#include <string>
#include <vector>

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

// Panels [first, last), at most kGemmF32SparseColumns columns, against rows [row, row + rows).
void run_tile(const GemmF32Plan& plan, const GemmF32Block& block, size_t first, size_t last,
              size_t row, size_t rows) {
  alignas(kCacheLine) float acc[kMaxMr * kGemmF32SparseColumns];
  const GemmF32Sparse& sparse = *plan.sparse;
  const float* const lhs = block.rows + row * block.row_stride;
  sparse.kernel->run({rows, last - first, lhs, block.row_stride, sparse.starts + first,
                      sparse.index, sparse.values, acc});
  const size_t nr = static_cast<size_t>(sparse.kernel->nr), column = first * nr;
  EpilogueF32Params out = {};
  out.m = rows;
  out.n = std::min(last * nr, plan.n) - column;
  out.acc = acc;
  out.acc_stride = kGemmF32SparseColumns;
  out.bias = plan.bias == nullptr ? nullptr : plan.bias + column;
  if (block.residual != nullptr)
    out.residual = block.residual + row * block.residual_stride + column;
  out.residual_stride = block.residual_stride;
  out.min = plan.min;
  out.max = plan.max;
  out.dst = block.dst + row * block.dst_stride + column;
  out.dst_stride = block.dst_stride;
  plan.epilogue(out);
}

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

Status take_sparse_rhs(const StepDesc& step, size_t index, MatMulRhs* rhs, GemmF32Sparse* sparse) {
  LEPTON_RETURN_IF_ERROR(read_packed_shape(step, &rhs->shape));
  if (rhs->shape.rank != 2) return invalid_model("a stack of sparse matrices");
  rhs->at_run_time = false;
  return take_sparse(step.kernel, step.inputs[index], static_cast<size_t>(rhs->shape[0]),
                     static_cast<size_t>(rhs->shape[1]), sparse);
}

void gemm_f32_sparse_block(const GemmF32Plan& plan, const GemmF32Block& block) {
  const size_t mr = static_cast<size_t>(plan.kernel->mr);
  const size_t group = kGemmF32SparseColumns / static_cast<size_t>(plan.kernel->nr);
  const size_t turn = sparse_rows_in_l1(block.row_stride * sizeof(float), mr);
  for (size_t row = 0; row < block.m; row += turn) {
    const size_t end = std::min(block.m, row + turn);
    for (size_t first = block.first; first < block.last; first += group) {
      const size_t last = std::min(block.last, first + group);
      for (size_t i = row; i < end; i += mr)
        run_tile(plan, block, first, last, i, std::min(mr, end - i));
    }
  }
}

}  // namespace lepton
