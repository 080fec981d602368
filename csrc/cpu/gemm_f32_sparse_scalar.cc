// The reference: row by row, one stored row of a panel after another, with separate multiply and
// add.
#include "ops/gemm_f32_sparse.h"

namespace lepton {

void gemm_f32_sparse_4x8_scalar(const GemmF32SparseParams& params) {
  constexpr size_t kNr = 8;
  for (size_t t = 0; t < params.m * params.panels; ++t) {
    const size_t i = t / params.panels, panel = t % params.panels;
    const float* const lhs = params.lhs + i * params.lhs_stride;
    float sum[kNr] = {};
    for (size_t q = params.starts[panel]; q < params.starts[panel + 1]; ++q)
      for (size_t j = 0; j < kNr; ++j) sum[j] += lhs[params.index[q]] * params.values[q * kNr + j];
    for (size_t j = 0; j < kNr; ++j)
      params.dst[i * kGemmF32SparseColumns + panel * kNr + j] = sum[j];
  }
}

}  // namespace lepton
