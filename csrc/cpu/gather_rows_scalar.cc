// A stretch in blocks of 16 bytes, which compilers move in two registers or one: a call of memcpy
// would cost more than most stretches do.
#include "ops/gather_rows.h"

namespace lepton {

void gather_rows_scalar(const GatherRowsParams& params) {
  constexpr size_t kBlock = 16;
  for (size_t i = 0; i < params.m; ++i)
    for (size_t j = 0; j < params.stretches; ++j) {
      const uint8_t* const src = params.src + i * params.step + j * params.line;
      uint8_t* const dst = params.dst + i * params.dst_stride + j * params.bytes;
      for (size_t b = 0; b < params.bytes; b += kBlock) __builtin_memcpy(dst + b, src + b, kBlock);
    }
}

}  // namespace lepton
