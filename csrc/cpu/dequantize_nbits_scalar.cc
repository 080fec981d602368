// The reference: element by element.
#include "ops/dequantize_nbits.h"

namespace lepton {

void dequantize_nbits_scalar(const DequantizeNBitsParams& params) {
  const size_t nr = params.nr, half = nr / 2, row_bytes = nr * params.bits / 8;
  for (size_t p = 0; p < params.rows; ++p) {
    const uint8_t* src = params.src + p * row_bytes;
    float* dst = params.dst + p * nr;
    for (size_t j = 0; j < nr; ++j) {
      int q = src[j % row_bytes];
      if (params.bits == 4) q = j < half ? q & 15 : q >> 4;
      dst[j] = (static_cast<float>(q) - params.zero_point[j]) * params.scale[j];
    }
  }
}

}  // namespace lepton
