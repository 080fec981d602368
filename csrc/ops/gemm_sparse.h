// Block-sparse right operands as the drivers of convolution and matrix multiplication see them. A
// driver that finds a step's kernel in a sparse list takes its packed operand with take_sparse, and
// goes on with GemmS8Plan or GemmF32Plan as for a dense one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ops/gemm_driver.h"
#include "ops/gemm_f32_sparse.h"
#include "ops/gemm_s8_sparse.h"
#include "ops/matmul_rhs.h"
#include "ops/op.h"

namespace lepton {

struct GemmS8SparseKernelInfo {
  const char* name;
  Isa isa;
  int mr, nr;
  GemmS8SparseKernel run;
};
KernelList<GemmS8SparseKernelInfo> gemm_s8_sparse_kernels();

struct GemmF32SparseKernelInfo {
  const char* name;
  Isa isa;
  int mr, nr;
  GemmF32SparseKernel run;
};
KernelList<GemmF32SparseKernelInfo> gemm_f32_sparse_kernels();

// A packed sparse matrix of k rows and n columns, in one blob, each part in whole cache lines:
//   starts [panels + 1] uint32: the quads before each panel of nr columns, and all of them
//   sums   [panels][nr] int32: of the columns, modulo 2^32
//   index  [quads] uint16: which four rows
//   values [quads][nr][4] int8
// All quads of a panel follow one another.
struct GemmS8Sparse {
  const GemmS8SparseKernelInfo* kernel = nullptr;
  const uint32_t* starts = nullptr;
  const int32_t* sums = nullptr;
  const uint16_t* index = nullptr;
  const int8_t* values = nullptr;
};

// The same in float32, of rows of a panel instead of quads:
//   starts [panels + 1] uint32: the rows before each panel, and all of them
//   index  [rows] uint16: which row of the matrix
//   values [rows][nr] float
struct GemmF32Sparse {
  const GemmF32SparseKernelInfo* kernel = nullptr;
  const uint32_t* starts = nullptr;
  const uint16_t* index = nullptr;
  const float* values = nullptr;
};

// Whether a step names a sparse kernel. Then *shape describes it as a dense one is described (mr,
// nr, kr and the form), for grids and the preparation of rows; it has no function.
bool find_sparse(std::string_view kernel, const GemmS8KernelInfo** shape);
bool find_sparse(std::string_view kernel, const GemmF32KernelInfo** shape);

// Reads and checks the blob of a k × n matrix for a kernel that find_sparse found and that runs
// here.
Status take_sparse(std::string_view kernel, const TensorInfo& blob, size_t k, size_t n,
                   GemmS8Sparse* sparse);
Status take_sparse(std::string_view kernel, const TensorInfo& blob, size_t k, size_t n,
                   GemmF32Sparse* sparse);

// The same for operand `index` of a matrix product, whose attributes k and n say its shape.
template <typename Sparse>
Status take_sparse_rhs(const StepDesc& step, size_t index, MatMulRhs* rhs, Sparse* sparse) {
  LEPTON_RETURN_IF_ERROR(read_packed_shape(step, &rhs->shape));
  if (rhs->shape.rank != 2) return invalid_model("a stack of sparse matrices");
  rhs->at_run_time = false;
  return take_sparse(step.kernel, step.inputs[index], static_cast<size_t>(rhs->shape[0]),
                     static_cast<size_t>(rhs->shape[1]), sparse);
}

// gemm_s8_block and gemm_f32_block for a plan whose `sparse` is not null.
void gemm_s8_sparse_block(const GemmS8Plan& plan, const GemmS8Block& block);
void gemm_f32_sparse_block(const GemmF32Plan& plan, const GemmF32Block& block);

}  // namespace lepton
