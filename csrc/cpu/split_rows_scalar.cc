// The reference.
#include "ops/split_rows.h"

#include <cmath>
#include <cstring>

namespace lepton {
namespace {

constexpr size_t kSlot[8] = {0, 2, 1, 3, 4, 6, 5, 7};

struct Factor {
  float factor, scale;
};

float power_of_two(int exponent) {
  const auto bits = static_cast<uint32_t>(exponent + 127) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

Factor factor_of(float largest, size_t digits) {
  if (digits == 1) return {largest < 0x1p-100f ? 0.f : 127.f / largest, largest / 127.f};
  uint32_t bits;
  std::memcpy(&bits, &largest, sizeof bits);
  int exponent = 22 + 127 - static_cast<int>(bits >> 23);
  if (exponent > 126) exponent = 126;
  if (largest * power_of_two(exponent) > 8355711.f) --exponent;
  return {power_of_two(exponent), power_of_two(-exponent)};
}

float finite(float x) { return x - x == 0.f ? x : 0.f; }

}  // namespace

bool split_row_scalar(const SplitRowParams& params) {
  bool all_finite = true;
  int8_t* dst = params.dst;
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const float* const x = params.x + p;
    const size_t rows = params.k - p < params.group ? params.k - p : params.group;
    const size_t padded = p + params.group < params.k ? params.padded_group : (rows + 7) / 8 * 8;
    float largest = 0.f;
    for (size_t r = 0; r < rows; ++r) {
      const float size = std::fabs(finite(x[r]));
      largest = size > largest ? size : largest;
      all_finite = all_finite && x[r] - x[r] == 0.f;
    }
    const Factor by = factor_of(largest, params.digits);
    int32_t sum[3] = {};
    for (size_t b = 0; b < padded; b += 8, dst += params.dst_stride) {
      for (size_t s = 0; s < 8; ++s) {
        const size_t r = b + kSlot[s];
        auto v = static_cast<int32_t>(std::nearbyint(r < rows ? finite(x[r]) * by.factor : 0.f));
        for (size_t d = 0; d < params.digits; ++d) {
          const auto digit = static_cast<int8_t>(v & 255);
          dst[d * 8 + s] = digit;
          sum[d] += digit;
          v = (v - digit) / 256;
        }
      }
    }
    for (size_t d = 0; d < params.digits; ++d)
      params.start[g * params.start_stride + d] = -params.offset * sum[d];
    params.scale[g * params.scale_stride] = by.scale;
    if (params.sum == nullptr) continue;
    float joined = static_cast<float>(sum[params.digits - 1]);
    for (size_t d = params.digits - 1; d-- > 0;)
      joined = std::fma(joined, 256.f, static_cast<float>(sum[d]));
    params.sum[g * params.scale_stride] = joined;
  }
  return all_finite;
}

}  // namespace lepton
