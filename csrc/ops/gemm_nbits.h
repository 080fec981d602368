// gemm_f32lut4, gemm_f32s8: one register tile of a float product by weights of 4 or 8 bits in
// groups along k, without making floats of the weights in memory.
//
//   dst[i][j] = sum over groups g of scale[g][j] ·
//               (sum over p in g of lhs[i][p] · value[p][j] − zero[g][j] · lhs_sum[i][g])
//                                                             i < m <= mr, j < nr, p < k
//
//   gemm_f32lut4: value = table[q], q a 4-bit index; table: 16 floats whose low 16 bits are zero
//                 (bfloat16 values), 4-byte aligned.
//   gemm_f32s8:   value = q, an int8; table is not read.
//
// lhs: rows of k floats, lhs_stride elements apart, exactly m rows readable. k and group are
//      multiples of kr; the driver pads each group of a row with zeros where the model's is not.
// lhs_sum: [m][sum_stride] sums of each group of a row; read only when zero is not null.
// zero: [groups][nr] int8, or null: all zero.
// weights: one record a group, of `group` rows (the last: what is left of k), one after another,
//      64-byte aligned: scale [nr] f32, then
//   lut4: [rows/8][nr] uint32, little-endian: one column's q of eight rows. Bits 4s … 4s + 3 hold
//         row slot[s] = {0, 4, 2, 6, 1, 5, 3, 7}[s]: the order in which bytes widened to pairs of
//         words fall on neighbouring floats of lhs.
//   s8:   [rows][nr] int8.
// dst: the whole tile, [mr][nr], 64-byte aligned, a scratch tile in L1 owned by the driver; rows
//      >= m may be left as they are.
// No operand overlaps another. The order of a sum is the kernel's own, so results may differ
// between kernels and with m by rounding, never with the cutting of m across calls of equal m.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct GemmNBitsParams {
  size_t m;
  size_t k;
  size_t group;
  const float* lhs;
  size_t lhs_stride;
  const float* lhs_sum;
  size_t sum_stride;
  const int8_t* zero;
  const uint8_t* weights;
  const float* table;
  float* dst;
};
using GemmNBitsKernel = void (*)(const GemmNBitsParams&);

}  // namespace lepton
