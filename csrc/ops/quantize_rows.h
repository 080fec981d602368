// quantize_row: one row of floats to 8 bit over its own range, in the form that gemm_s8 reads.
//
//   low = min(0, x…), high = max(0, x…), scale = high / 255 − low / 255, or 1 when that is 0
//   zero = clamp(rint(−low / scale), 0, 255)
//   dst[p] = clamp(rint(x[p] / scale) + zero, 0, 255) − zero      p < k
//   dst[p] = 0                                                    k <= p < k_padded
//
// This is DynamicQuantizeLinear with the zero point already subtracted. Returns scale. rint: ties
// to even; bit-identical on every ISA. A row with NaN or infinity gives zeros and a
// scale of NaN, so that the product says so. x and dst need no alignment; exactly k floats are read
// and k_padded int16 written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

using QuantizeRowKernel = float (*)(const float* x, size_t k, size_t k_padded, int16_t* dst);

#define LEPTON_QUANTIZE_ROW(name, isa) \
  float name(const float* x, size_t k, size_t k_padded, int16_t* dst);
#include "ops/quantize_rows_kernels.inc"
#undef LEPTON_QUANTIZE_ROW

}  // namespace lepton
