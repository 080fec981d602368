// The reference.
#include <cmath>

#include "ops/quantize_kernels.h"

namespace lepton {

void quantize_f32_scalar(const QuantizeParams& params) {
  const float lo = params.is_signed ? -128.f : 0.f, hi = lo + 255.f;
  for (size_t i = 0; i < params.n; ++i) {
    const float x = params.factor == nullptr ? params.x[i] : params.x[i] * params.factor[i];
    float q = std::nearbyint(x / params.scale) + static_cast<float>(params.zero_point);
    q = q > lo ? q : lo;
    q = q < hi ? q : hi;
    params.y[i] = static_cast<uint8_t>(static_cast<int32_t>(q));
  }
}

}  // namespace lepton
