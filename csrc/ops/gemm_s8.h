// gemm_s8: one register tile of dst = lhs · rhs, 8-bit integers in, exact int32 out.
//
//   dst[i][j] = (accumulate ? dst[i][j] : 0) + sum over p of lhs[i][p] · rhs[p][j]
//                                                             i < m <= mr, j < nr, p < k
//
// Both operands arrive widened to int16 with their zero points already subtracted (|value| <= 255),
// so one kernel serves u8 and s8 on both sides and no row or column sums are needed.
//
// lhs: rows of k int16, lhs_stride elements apart, 4-byte aligned, k a multiple of kr (the driver
//      pads rows with zeros); exactly m rows are readable.
// rhs: one packed panel, [k/kr][nr][kr] int16, 32-byte aligned; columns beyond n and rows beyond
// the
//      true k are zeros (the packer pads).
// dst: the whole tile, [mr][nr] int32, 64-byte aligned scratch of the driver; rows >= m may be left
//      as they are.
// Overflow: two products of a pair are at most 2·255·255 < 2^31, so vpmaddwd never saturates; sums
// are exact while k·255·255 < 2^31 and wrap modulo 2^32 beyond, on every ISA alike.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct GemmS8Params {
  size_t m;
  size_t k;
  const int16_t* lhs;
  size_t lhs_stride;
  const int16_t* rhs;
  int32_t* dst;
  bool accumulate;  // start from dst instead of zero: k in several calls
};
using GemmS8Kernel = void (*)(const GemmS8Params&);

}  // namespace lepton
