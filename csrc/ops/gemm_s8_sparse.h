// gemm_s8_sparse: register tiles of dst = lhs · rhs, some panels of nr columns side by side, where
// of rhs only the blocks of nr columns × 4 rows ("quads") that are not all zero are stored; 8-bit
// integers in, exact int32 out.
//
//   dst[i][p·nr + j] = (accumulate ? dst[i][p·nr + j] : 0) +
//                      sum over starts[p] <= q < starts[p + 1], r < 4 of
//                      lhs[i][4·index[q] + r] · values[q][j][r]
//                                                             i < m <= mr, p < panels, j < nr
//
// lhs: uint8, rows lhs_stride bytes apart, m rows readable up to the last quad that is named. Its
//      zero point is still in it: the driver takes zero_point · (sum of a column) off the result.
// starts: [panels + 1] ascending; index and values begin at quad 0, whatever starts[0] is.
// index: in any order within a panel.
// values: [quads][nr][4] int8, nr·4-byte aligned.
// dst: m rows of panels·nr int32, kGemmSparseColumns elements apart and no more than that, 64-byte
// aligned, scratch of the driver: with one stride its rows need no registers for addresses. Sums
// are exact while they fit int32 and wrap modulo 2^32 beyond, on every ISA alike; no intermediate
// saturates.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

constexpr size_t kGemmSparseColumns = 64;

struct GemmS8SparseParams {
  size_t m, panels;
  const uint8_t* lhs;
  size_t lhs_stride;
  const uint32_t* starts;
  const uint16_t* index;
  const int8_t* values;
  int32_t* dst;
  bool accumulate;
};
using GemmS8SparseKernel = void (*)(const GemmS8SparseParams&);

}  // namespace lepton
