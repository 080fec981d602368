// gemm_f32_sparse: register tiles of dst = lhs · rhs, some panels of nr columns side by side, where
// of rhs only those rows of a panel are stored that are not all zero; float32.
//
//   dst[i][p·nr + j] = sum over starts[p] <= q < starts[p + 1] of lhs[i][index[q]] · values[q][j]
//                                                             i < m <= mr, p < panels, j < nr
//
// One chain of fused multiply-adds from +0 in the order of q (the scalar kernel rounds between):
// with ascending indices the value that gemm_f32 of the same isa computes, as long as lhs is
// finite. A value of lhs that meets zeros alone is not read: an infinity or NaN there leaves no
// trace.
//
// lhs: rows lhs_stride elements apart, m rows readable up to the last index that is named.
// starts: [panels + 1] ascending; index and values begin at row 0, whatever starts[0] is.
// values: [rows][nr] float, nr·4-byte aligned.
// dst: m rows of panels·nr float, kGemmF32SparseColumns elements apart and no more than that,
// 64-byte aligned, scratch of the driver: with one stride its rows need no registers for addresses.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

constexpr size_t kGemmF32SparseColumns = 64;

struct GemmF32SparseParams {
  size_t m, panels;
  const float* lhs;
  size_t lhs_stride;
  const uint32_t* starts;
  const uint16_t* index;
  const float* values;
  float* dst;
};
using GemmF32SparseKernel = void (*)(const GemmF32SparseParams&);

}  // namespace lepton
