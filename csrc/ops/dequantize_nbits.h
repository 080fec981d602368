// dequantize_nbits: rows of one panel of grouped 4- or 8-bit weights to float32, in the form in
// which gemm_f32 reads its rhs.
//
//   dst[p][j] = (q[p][j] − zero_point[j])·scale[j]     p < rows, j < nr
//
// src: rows one after another, nr·bits/8 bytes each, unsigned integers. 8 bits: q[p][j] is byte j.
//      4 bits: byte j holds column j in its low half and column j + nr/2 in its high half.
// scale, zero_point: nr floats, those of the one group that all rows belong to; 4-byte aligned.
// dst: [rows][nr], 32-byte aligned. nr is 8 or 16: that of the gemm_f32 kernel the panel is for.
// One subtraction and one product an element, so that every kernel gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct DequantizeNBitsParams {
  size_t rows;
  size_t nr;
  size_t bits;
  const uint8_t* src;
  const float* scale;
  const float* zero_point;
  float* dst;
};
using DequantizeNBitsKernel = void (*)(const DequantizeNBitsParams&);

}  // namespace lepton
