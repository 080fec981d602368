// gemm_s8_sparse: one register tile of dst = lhs · rhs, where of rhs only the blocks of nr columns
// × 4 rows ("quads") that are not all zero are stored; 8-bit integers in, exact int32 out.
//
//   dst[i][j] = (accumulate ? dst[i][j] : 0) +
//               sum over q < quads, r < 4 of lhs[i][4·index[q] + r] · values[q][j][r]
//                                                             i < m <= mr, j < nr
//
// lhs: uint8, rows lhs_stride bytes apart, m rows readable up to the last quad that is named. Its
//      zero point is still in it: the driver takes zero_point · (sum of column j) off the result.
// index: [quads] in any order.
// values: [quads][nr][4] int8, nr·4-byte aligned. For a kernel that is `bounded` a quad's pairs of
//      neighbouring weights are such that 255 times their positive part and 255 times their
//      negative part fit int16; the packer stores other quads twice, each time half of the value.
// dst: [m] rows of nr int32, dst_stride elements apart, nr·4-byte aligned, scratch of the driver.
// Sums are exact while they fit int32 and wrap modulo 2^32 beyond, on every ISA alike; no
// intermediate saturates.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct GemmS8SparseParams {
  size_t m, quads;
  const uint8_t* lhs;
  size_t lhs_stride;
  const uint16_t* index;
  const int8_t* values;
  int32_t* dst;
  size_t dst_stride;
  bool accumulate;
};
using GemmS8SparseKernel = void (*)(const GemmS8SparseParams&);

}  // namespace lepton
