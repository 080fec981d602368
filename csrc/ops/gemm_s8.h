// gemm_s8: one register tile of dst = lhs · rhs, 8-bit integers in, exact int32 out.
//
//   dst[i][j] = (accumulate ? dst[i][j] : 0) + sum over p of lhs[i][p] · rhs[p][j]
//                                                             i < m <= mr, j < n <= nr, p < k
//
// A kernel reads its operands in one of two forms:
//   i16: both widened to int16 with their zero points subtracted (|value| <= 255), so that one
//        kernel serves u8 and s8 on both sides and nothing is left to correct.
//   u8:  lhs as uint8 with its zero point still in it (s8 enters as x + 128), rhs as int8 with its
//        zero point subtracted, which is possible where the difference fits. The driver takes
//        zero_point · (sum of column j) off the result.
//
// lhs: rows of k values, lhs_stride of them apart, k a multiple of kr (the driver pads rows); for
//      i16 4-byte aligned. Exactly m rows are readable.
// rhs: the values of one packed panel, [k/kr][n][kr], n a multiple of nv, 32-byte aligned (64 where
//      nv · kr values fill as much); columns beyond the matrix and rows beyond the true k are zeros
//      (the packer pads).
// dst: [m][n] int32, 64-byte aligned scratch of the driver.
// Overflow: sums are exact while they fit int32 (k·255·255 < 2^31 always does) and wrap modulo 2^32
// beyond, on every ISA alike; no intermediate saturates.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

enum class LhsForm : uint8_t { kI16, kU8 };

struct GemmS8Params {
  size_t m, n, k;
  const void* lhs;  // int16_t or uint8_t, by the kernel's form
  size_t lhs_stride;
  const void* rhs;  // int16_t or int8_t
  int32_t* dst;
  bool accumulate;  // start from dst instead of zero: k in several calls
};
using GemmS8Kernel = void (*)(const GemmS8Params&);

}  // namespace lepton
