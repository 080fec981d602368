// copy_u8: rows of bytes, as gemm_s8 kernels of lhs form u8 read them, where the tensor itself does
// not serve: signed values become unsigned, rows are padded.
//
//   dst[i][p] = src[i][p] ^ flip          i < m, p < k
//   dst[i][p] = 0                         k <= p < k_padded
//
// flip: 0, or 0x80, which adds 128 to a signed byte. src: rows src_stride bytes apart, no
// alignment; nothing beyond the m rows of k is read. dst: rows dst_stride bytes apart; nothing
// beyond k_padded >= k is written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct CopyU8Params {
  size_t m, k, k_padded;
  const uint8_t* src;
  size_t src_stride;
  uint8_t flip;
  uint8_t* dst;
  size_t dst_stride;
};
using CopyU8Kernel = void (*)(const CopyU8Params&);

}  // namespace lepton
