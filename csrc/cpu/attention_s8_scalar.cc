// Attention with 8-bit operands in plain C++: the definition beside the vector kernels.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "ops/attention_s8_kernels.h"

namespace lepton {
namespace {

struct Range {
  float inverse, scale;
  bool finite = true;

  static Range of(float amax, bool finite) {
    if (!finite) return {0.f, std::numeric_limits<float>::quiet_NaN(), false};
    if (amax < 1e-30f) return {0.f, 1.f, true};
    return {127.f / amax, amax / 127.f, true};
  }
  int32_t round(float x) const {
    return finite ? static_cast<int32_t>(std::nearbyint(x * inverse)) : 0;
  }
};

Range range_of(const float* x, size_t stride, size_t n) {
  float amax = 0.f;
  bool finite = true;
  for (size_t i = 0; i < n; ++i) {
    const float a = std::fabs(x[i * stride]);
    finite = finite && a <= std::numeric_limits<float>::max();
    if (a > amax) amax = a;
  }
  return Range::of(amax, finite);
}

template <typename Element>
int32_t quantize_row(const float* x, size_t k, size_t k_padded, int offset, Element* dst,
                     float* scale) {
  const Range range = range_of(x, 1, k);
  *scale = range.scale;
  int32_t total = 0;
  for (size_t i = 0; i < k; ++i) {
    const int32_t q = range.round(x[i]);
    total += q;
    dst[i] = static_cast<Element>(q + offset);
  }
  for (size_t i = k; i < k_padded; ++i) dst[i] = 0;
  return total;
}

void quantize_rows_s8(const float* x, size_t stride, size_t n, size_t k, size_t k_padded,
                      int offset, uint8_t* dst, float* scale, int32_t* sum) {
  for (size_t i = 0; i < n; ++i) {
    const int32_t total =
        quantize_row(x + i * stride, k, k_padded, offset, dst + i * k_padded, scale + i);
    if (sum != nullptr) sum[i] = total;
  }
}

void quantize_rows_i16(const float* x, size_t stride, size_t n, size_t k, size_t k_padded,
                       int16_t* dst, float* scale) {
  for (size_t i = 0; i < n; ++i)
    quantize_row(x + i * stride, k, k_padded, 0, dst + i * k_padded, scale + i);
}

template <typename Element, size_t kKr>
void pack_values(const float* x, size_t stride, size_t n, size_t columns, size_t width,
                 Element* packed, float* scale) {
  for (size_t c = 0; c < width; ++c) {
    const Range range = c < columns ? range_of(x + c, stride, n) : Range{0.f, 1.f, true};
    if (c < columns) scale[c] = range.scale;
    for (size_t j = 0; j < (n + kKr - 1) / kKr * kKr; ++j) {
      const int32_t q = j < n && c < columns ? range.round(x[j * stride + c]) : 0;
      packed[(j / kKr * width + c) * kKr + j % kKr] = static_cast<Element>(q);
    }
  }
}

int32_t* place(const AttentionS8Row& row, size_t j) {
  const size_t panel = j / row.width, whole = row.n / row.width;
  const size_t w = panel < whole ? row.width : row.last_width;
  return row.scores + panel * row.panel_stride + row.row * w + j % row.width;
}

float score(const AttentionS8Row& row, size_t j) {
  constexpr float kMasked = -HUGE_VALF;
  const int32_t correction = row.correction == nullptr ? 0 : row.correction[j];
  const float s = static_cast<float>(*place(row, j) - correction) * row.key_scale[j];
  if (row.mask != nullptr && row.mask[j] == 0) return kMasked;
  if (row.bias == nullptr) return s;
  if (row.bias[j] == kMasked) return kMasked;
  const float bias = row.bias[j] * 1.44269504f;
  return s * row.scale + (bias > -3.4028235e38f ? bias : -3.4028235e38f);
}

float scores_row(const AttentionS8Row& row) {
  float max = -HUGE_VALF;
  for (size_t j = 0; j < row.last; ++j) {
    const float t = score(row, j);
    std::memcpy(place(row, j), &t, sizeof(t));
    if (t > max) max = t;
  }
  return max;
}

int32_t probability(float z) {
  if (!(z > -16.f)) z = -16.f;
  const float n = std::nearbyint(z), f = z - n;
  const float c = std::fma(std::fma(std::fma(Exp2::c3, f, Exp2::c2), f, Exp2::c1), f, Exp2::c0);
  return static_cast<int32_t>(std::nearbyint(std::ldexp(c, static_cast<int>(n))));
}

template <typename Element>
int32_t exponentials_row(const AttentionS8Row& row, float max) {
  auto* const p = static_cast<Element*>(row.p);
  const float factor = row.bias == nullptr ? row.scale : 1.f;
  int32_t sum = 0;
  for (size_t j = 0; j < row.n_padded; ++j) {
    float t = 0.f;
    if (j < row.last) std::memcpy(&t, place(row, j), sizeof(t));
    const int32_t q = j < row.last ? probability((t - max) * factor) : 0;
    p[j] = static_cast<Element>(q);
    sum += q;
  }
  return sum;
}

}  // namespace

AttentionS8Kernels attention_s8_scalar() {
  return {quantize_rows_s8,         quantize_rows_i16, pack_values<int8_t, 4>,
          pack_values<int16_t, 2>,  scores_row,        exponentials_row<uint8_t>,
          exponentials_row<int16_t>};
}

}  // namespace lepton
