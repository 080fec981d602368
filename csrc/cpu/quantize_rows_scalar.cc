// The reference.
#include "ops/quantize_rows.h"

#include <cmath>

namespace lepton {
namespace {

struct Quantization {
  float scale, zero_point;
};

Quantization range_of(const float* x, size_t k) {
  float low = 0.f, high = 0.f;
  bool finite = true;
  for (size_t p = 0; p < k; ++p) {
    low = x[p] < low ? x[p] : low;
    high = x[p] > high ? x[p] : high;
    finite = finite && x[p] - x[p] == 0.f;
  }
  if (!finite) return {__builtin_nanf(""), 0.f};
  // Divided before they are subtracted: the difference of two large floats overflows.
  float scale = high / 255.f - low / 255.f;
  if (!(scale > 0.f)) scale = 1.f;
  const float zero_point = std::nearbyint(-low / scale);
  return {scale, zero_point > 255.f ? 255.f : zero_point};
}

// Elements are q − offset.
template <typename Element>
void quantize(const float* x, size_t k, size_t k_padded, const Quantization& by, float offset,
              Element* dst) {
  for (size_t p = 0; p < k_padded; ++p) dst[p] = 0;
  if (by.scale != by.scale) return;
  for (size_t p = 0; p < k; ++p) {
    float q = std::nearbyint(x[p] / by.scale) + by.zero_point;
    q = q < 0.f ? 0.f : q;
    q = q > 255.f ? 255.f : q;
    dst[p] = static_cast<Element>(static_cast<int32_t>(q - offset));
  }
}

}  // namespace

float quantize_row_i16_scalar(const float* x, size_t k, size_t k_padded, int16_t* dst) {
  const Quantization by = range_of(x, k);
  quantize(x, k, k_padded, by, by.zero_point, dst);
  return by.scale;
}

float quantize_row_u8_scalar(const float* x, size_t k, size_t k_padded, uint8_t* dst,
                             int32_t* zero_point) {
  const Quantization by = range_of(x, k);
  quantize(x, k, k_padded, by, 0.f, dst);
  *zero_point = static_cast<int32_t>(by.zero_point);
  return by.scale;
}

}  // namespace lepton
