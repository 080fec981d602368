// quantize_row: one row of floats to 8 bit over its own range, in the forms that gemm_s8 reads.
//
//   low = min(0, x…), high = max(0, x…), scale = high / 255 − low / 255, or 1 when that is 0
//   zero_point = clamp(rint(−low / scale), 0, 255)
//   q[p] = clamp(rint(x[p] / scale) + zero_point, 0, 255)       p < k
//   i16: dst[p] = q[p] − zero_point       u8: dst[p] = q[p]
//   dst[p] = 0                                                  k <= p < k_padded
//
// This is DynamicQuantizeLinear. Returns scale. rint: ties to even; bit-identical on every ISA. A
// row with NaN or infinity gives zeros, a zero_point of 0 and a scale of NaN, so that the product
// says so. x and dst need no alignment; exactly k floats are read and k_padded elements written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

using QuantizeRowI16Kernel = float (*)(const float* x, size_t k, size_t k_padded, int16_t* dst);
using QuantizeRowU8Kernel = float (*)(const float* x, size_t k, size_t k_padded, uint8_t* dst,
                                      int32_t* zero_point);

#define LEPTON_QUANTIZE_ROW_I16(name, isa) \
  float name(const float* x, size_t k, size_t k_padded, int16_t* dst);
#define LEPTON_QUANTIZE_ROW_U8(name, isa) \
  float name(const float* x, size_t k, size_t k_padded, uint8_t* dst, int32_t* zero_point);
#include "ops/quantize_rows_kernels.inc"
#undef LEPTON_QUANTIZE_ROW_I16
#undef LEPTON_QUANTIZE_ROW_U8

}  // namespace lepton
