// The reference: row by row, quad by quad.
#include "ops/gemm_s8_sparse.h"

namespace lepton {

void gemm_s8_sparse_4x8c4_scalar(const GemmS8SparseParams& params) {
  constexpr size_t kNr = 8, kKr = 4;
  for (size_t t = 0; t < params.m * params.panels; ++t) {
    const size_t i = t / params.panels, panel = t % params.panels;
    int32_t* const dst = params.dst + i * kGemmSparseColumns + panel * kNr;
    uint32_t sum[kNr] = {};
    if (params.accumulate)
      for (size_t j = 0; j < kNr; ++j) sum[j] = static_cast<uint32_t>(dst[j]);
    for (size_t q = params.starts[panel]; q < params.starts[panel + 1]; ++q) {
      const uint8_t* const lhs = params.lhs + i * params.lhs_stride + params.index[q] * kKr;
      const int8_t* const values = params.values + q * kNr * kKr;
      for (size_t j = 0; j < kNr; ++j)
        for (size_t r = 0; r < kKr; ++r)
          sum[j] += static_cast<uint32_t>(lhs[r] * values[j * kKr + r]);
    }
    for (size_t j = 0; j < kNr; ++j) dst[j] = static_cast<int32_t>(sum[j]);
  }
}

}  // namespace lepton
