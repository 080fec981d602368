// The reference, byte by byte.
#include "ops/copy_u8.h"

namespace lepton {

void copy_u8_scalar(const CopyU8Params& params) {
  for (size_t i = 0; i < params.m; ++i) {
    const uint8_t* src = params.src + i * params.src_stride;
    uint8_t* dst = params.dst + i * params.dst_stride;
    for (size_t p = 0; p < params.k; ++p) dst[p] = static_cast<uint8_t>(src[p] ^ params.flip);
    for (size_t p = params.k; p < params.k_padded; ++p) dst[p] = 0;
  }
}

}  // namespace lepton
