// widen_s8: rows of 8-bit integers to rows of int16 with the zero point subtracted, the form in
// which gemm_s8 reads its lhs.
//
//   dst[i][p] = int16(src[i][p]) − zero_point     i < m, p < k
//   dst[i][p] = 0                                 k <= p < k_padded
//
// src: rows src_stride bytes apart, u8 or s8 as src_signed says, no alignment, nothing beyond the m
//      rows of k is read.
// dst: rows dst_stride int16 apart, dst_stride >= k_padded >= k; nothing beyond k_padded is
// written. zero_point is in the range of src's type, so |dst| <= 255.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct WidenS8Params {
  size_t m, k, k_padded;
  const void* src;
  size_t src_stride;
  bool src_signed;
  int32_t zero_point;
  int16_t* dst;
  size_t dst_stride;
};
using WidenS8Kernel = void (*)(const WidenS8Params&);

}  // namespace lepton
