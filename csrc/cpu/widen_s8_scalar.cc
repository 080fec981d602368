// The reference: element by element.
#include "ops/widen_s8.h"

namespace lepton {
namespace {

template <typename T>
void widen(const WidenS8Params& params) {
  for (size_t i = 0; i < params.m; ++i) {
    const T* src = static_cast<const T*>(params.src) + i * params.src_stride;
    int16_t* dst = params.dst + i * params.dst_stride;
    for (size_t p = 0; p < params.k; ++p) dst[p] = static_cast<int16_t>(src[p] - params.zero_point);
    for (size_t p = params.k; p < params.k_padded; ++p) dst[p] = 0;
  }
}

}  // namespace

void widen_s8_scalar(const WidenS8Params& params) {
  params.src_signed ? widen<int8_t>(params) : widen<uint8_t>(params);
}

}  // namespace lepton
