// The definition: a pass for the range, a pass for the integers.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ops/quantize_rows.h"

namespace lepton {

float quantize_row_scalar(const float* x, size_t k, size_t k_padded, int16_t* dst) {
  float low = 0.f, high = 0.f;
  bool finite = true;
  for (size_t p = 0; p < k; ++p) {
    low = x[p] < low ? x[p] : low;
    high = x[p] > high ? x[p] : high;
    finite = finite && x[p] - x[p] == 0.f;
  }
  for (size_t p = 0; p < k_padded; ++p) dst[p] = 0;
  if (!finite) return __builtin_nanf("");
  // Divided before they are subtracted: the difference of two large floats overflows.
  float scale = high / 255.f - low / 255.f;
  if (!(scale > 0.f)) scale = 1.f;
  float zero = std::nearbyint(-low / scale);
  zero = zero > 255.f ? 255.f : zero;
  for (size_t p = 0; p < k; ++p) {
    float q = std::nearbyint(x[p] / scale) + zero;
    q = q < 0.f ? 0.f : q;
    q = q > 255.f ? 255.f : q;
    dst[p] = static_cast<int16_t>(static_cast<int32_t>(q - zero));
  }
  return scale;
}

}  // namespace lepton
