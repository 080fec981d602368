// 32 floats at a time, as in quantize_avx512.cc; the last ones through a copy. Bound by arithmetic,
// nine instructions for eight floats.
#include "cpu/quantize_avx2.h"

#include "ops/quantize_kernels.h"

namespace lepton {
namespace {

template <bool kSigned, typename Divide>
inline void quantize(const QuantizeParams& shared, float most) {
  const QuantizeParams params = shared;
  const Divide divide(params.scale);
  const Packer packer(params.zero_point);
  const __m256 most_f32x8 = _mm256_set1_ps(most);
  const auto quantized = [&](const float* x) {
    const auto quotient = [&](size_t i) {
      return divide(_mm256_min_ps(most_f32x8, _mm256_loadu_ps(x + i)));
    };
    return packer.pack<kSigned>(quotient(0), quotient(8), quotient(16), quotient(24));
  };
  size_t i = 0;
  for (; i + 32 <= params.n; i += 32)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(params.y + i), quantized(params.x + i));
  if (i == params.n) return;
  float rest[32] = {};
  alignas(32) uint8_t bytes[32];
  for (size_t p = i; p < params.n; ++p) rest[p - i] = params.x[p];
  _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), quantized(rest));
  for (size_t p = i; p < params.n; ++p) params.y[p] = bytes[p - i];
}

// Quotients of any kind: bounded after the division.
struct BoundedDivider : Divider {
  using Divider::Divider;
  __m256 operator()(__m256 v) const {
    return _mm256_min_ps(_mm256_set1_ps(65536.f), Divider::operator()(v));
  }
};

}  // namespace

void quantize_f32_avx2(const QuantizeParams& params) {
  if (is_moderate(params.scale)) {
    const float most = params.scale * 65536.f;
    if (params.is_signed) return quantize<true, ReciprocalDivider>(params, most);
    return quantize<false, ReciprocalDivider>(params, most);
  }
  const float most = __builtin_inff();
  if (params.is_signed) return quantize<true, BoundedDivider>(params, most);
  quantize<false, BoundedDivider>(params, most);
}

}  // namespace lepton
