// gemm_s8u4, gemm_s8lut4: a register tile of a product of fixed-point rows by 4-bit weights in
// groups along k, whose sums are exact integers.
//
//   dst[i][c·nr + j] = sum over groups g of lhs_scale[g][i] · scale[g][j] ·
//                      (S − zero[g][j] · lhs_sum[g][i])
//   S = sum over digits d of 256^d · (start[g][i][d] +
//                                     sum over p in g of lhs[i][p][d] · value[p][j])
//                                        i < m <= mr, c < panels <= 4, j < nr, p < k
//
//   gemm_s8u4:   value = q, the 4-bit weight; table is not read.
//   gemm_s8lut4: value = table[q], 16 bytes, unsigned.
//
// A row of lhs is an integer of one or three 8-bit digits, −127 … 127 each, for every element, and
// a float scale for every group (split_rows.h makes them). Integers of three digits hold what
// float32 holds of a group; one digit is 8-bit activations.
//
// lhs: [k/8][m][digits][8]: eight rows of weights' digits in the order slot (below) has them.
// start: −offset · (sum of the digit over the group), for values that mean value − offset.
// lhs_scale, lhs_sum: [groups][m]; lhs_sum, the integer sum of a group's row, read only when zero
// is
//      not null.
// weights: panels of nr columns, panel_stride bytes apart, each as gemm_nbits.h has lut4 records:
//      bits 4s … 4s + 3 of a word hold row {0, 4, 2, 6, 1, 5, 3, 7}[s]. Four bytes of lhs meet the
//      low, the next four the high halves of a word's bytes.
// zero: [groups][nr] int8 of the first panel, those of the others panel_stride bytes on; or null.
// k, group: multiples of 8, group <= kMaxGroupS8U4.
// dst: [mr][4·nr], 64-byte aligned, a scratch tile in L1 owned by the driver; rows >= m and columns
//      of panels that were not asked for may be left as they are.
// No operand overlaps another. S is exact in int32 for each digit, and digits, zero points and
// groups (ascending) are joined by fused multiply-adds in one order: results are bit-identical on
// every ISA, and a row's do not depend on m.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

// Rows of a group for which no sum of a digit leaves int32.
constexpr size_t kMaxGroupS8U4 = 1024;
constexpr size_t kPanelsS8U4 = 4;

struct GemmS8U4Params {
  size_t m;
  size_t digits;
  size_t k;
  size_t group;
  size_t panels;
  size_t panel_stride;
  const int8_t* lhs;
  const int32_t* start;
  const float* lhs_scale;
  const float* lhs_sum;
  const int8_t* zero;
  const uint8_t* weights;
  const uint8_t* table;
  float* dst;
};
using GemmS8U4Kernel = void (*)(const GemmS8U4Params&);

}  // namespace lepton
