// gemm_f32: one register tile of dst = lhs · rhs in float32.
//
//   dst[i][j] = (accumulate ? dst[i][j] : 0) + sum over p of lhs[i][p] · rhs[p][j]
//                                                             i < m <= mr, j < nr, p < k
//
// lhs: rows of k floats, lhs_stride elements apart, no alignment, not padded: exactly m rows of k
//      elements are readable.
// rhs: one packed panel, [k][nr], 32-byte aligned; columns beyond n are zeros (the packer pads).
// prefetch: what the caller will read next, or null; the prefetch_step floats from p ·
// prefetch_step
//      of it on are brought into L2 at step p. It is only a hint and may lie anywhere.
// dst: the whole tile, [mr][nr], 64-byte aligned, always a scratch tile in L1 owned by the driver;
//      rows >= m are left as they are. The epilogue turns it into the result.
// No operand overlaps another. Sums run over p in order, in one accumulator each, so cutting k or m
// changes no bit; FMA is allowed, so results may differ between kernels by rounding.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct GemmF32Params {
  size_t m;
  size_t k;
  const float* lhs;
  size_t lhs_stride;
  const float* rhs;
  float* dst;
  bool accumulate;  // start from dst instead of zero: k in several calls
  const float* prefetch = nullptr;
  size_t prefetch_step = 0;
};
using GemmF32Kernel = void (*)(const GemmF32Params&);

}  // namespace lepton
