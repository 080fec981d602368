// The reference: element by element, in the order of the contract.
#include "ops/epilogue.h"

namespace lepton {

void epilogue_f32_scalar(const EpilogueF32Params& params) {
  for (size_t i = 0; i < params.m; ++i) {
    const float* acc = params.acc + i * params.acc_stride;
    float* dst = params.dst + i * params.dst_stride;
    for (size_t j = 0; j < params.n; ++j) {
      float y = acc[j];
      if (params.bias != nullptr) y += params.bias[j];
      if (params.residual != nullptr) y += params.residual[i * params.residual_stride + j];
      y = y < params.min ? params.min : y;
      dst[j] = y > params.max ? params.max : y;
    }
  }
}

}  // namespace lepton
