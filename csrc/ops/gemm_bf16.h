// gemm_bf16: float32 times weights that are kept as bfloat16.
//
// Few rows, as they are:
//
//   dst[i][panel·nr + j] = sum over p of lhs[i][p] · float(rhs[panel][p][j])
//                                        i < m, panel < panels, j < nr, p < k
//
// lhs: rows of k floats, lhs_stride elements apart, no alignment: exactly m rows of k are readable.
// rhs: `panels` packed panels, panel_stride elements apart, 32-byte aligned. A panel is
//      [ceil(k/2)][nr][2] bfloat16: two rows of the matrix side by side, so that a 32-bit lane is
//      two floats of one column, one of them its upper half and the other a shift away. Columns
//      beyond n and the row beyond an odd k are zeros (the packer pads).
// dst: [m][panels·nr], 64-byte aligned, a scratch tile of the driver's.
// No operand overlaps another. Sums run over p in order, in one accumulator each, as in gemm_f32 of
// the same isa: the bits are those of gemm_f32 by the weights as floats, whichever computes them.
//
// Many rows, by gemm_f32: `unpack` makes floats of rows [0, k) of a panel, [k][nr].
//
// Many rows where processors multiply bfloat16 themselves, the rows rounded, too (GemmBf16Pairs…):
//
//   dst[i][j] = (accumulate ? dst[i][j] : 0) + sum over p of float(lhs[i][p]) · float(rhs[p][j])
//
// with lhs rows of k bfloat16, k a multiple of the kernel's kr, lhs_stride elements apart, 4-byte
// aligned; rhs a panel from an even row on; dst [mr][nr], 64-byte aligned scratch, of which rows
// >= m may change. The caller pads the rows with zeros, the packer the panel, up to kr. The order
// of a sum is the kernel's own; subnormal operands, products and sums may count as zero.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct GemmBf16Params {
  size_t m;       // 1 to the kernel's mr
  size_t panels;  // 1, or with one row up to the most of the kernel's line
  size_t k;
  const float* lhs;
  size_t lhs_stride;
  const uint16_t* rhs;
  size_t panel_stride;
  float* dst;
};
struct GemmBf16PairsParams {
  size_t m;  // 1 to the kernel's pairs_mr
  size_t k;
  const uint16_t* lhs;
  size_t lhs_stride;
  const uint16_t* rhs;
  float* dst;
  bool accumulate;  // start from dst instead of zero: k in several calls
};
using GemmBf16PairsKernel = void (*)(const GemmBf16PairsParams&);
using GemmBf16Kernel = void (*)(const GemmBf16Params&);
using UnpackBf16Kernel = void (*)(const uint16_t* panel, size_t k, float* dst);

}  // namespace lepton
