// gemv_f32: one row times several neighbouring panels of gemm_f32's packed rhs.
//
//   dst[panel·nr + j] = sum over p of lhs[p] · rhs[panel][p][j]      panel < panels, j < nr, p < k
//
// A register tile of one row has too few accumulators to hide the latency of its FMAs; this
// kernel takes them from several panels. Sums run over p in order, in one accumulator each, as in
// gemm_f32 of the same isa: which of the two computes a row changes no bit.
//
// lhs: k floats, no alignment. rhs: `panels` packed panels (gemm_f32.h), panel_stride floats apart.
// dst: panels·nr floats, 64-byte aligned scratch of the driver.
#pragma once

#include <cstddef>

namespace lepton {

struct GemvF32Params {
  size_t panels;  // 1 to the most of the kernel's line
  size_t k;
  const float* lhs;
  const float* rhs;
  size_t panel_stride;
  float* dst;
};
using GemvF32Kernel = void (*)(const GemvF32Params&);

}  // namespace lepton
