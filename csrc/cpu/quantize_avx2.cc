// 32 floats at a time, as in quantize_avx512.cc; the last ones through a copy. Bound by arithmetic,
// nine instructions for eight floats.
#include "cpu/quantize_avx2.h"

#include "ops/quantize_kernels.h"

namespace lepton {
namespace {

template <bool kSigned, bool kFactors, typename Divide>
inline void quantize(const QuantizeParams& shared, float most) {
  const QuantizeParams params = shared;
  const Divide divide(params.scale);
  const Packer packer(params.zero_point);
  const __m256 most_f32x8 = _mm256_set1_ps(most);
  const auto quantized = [&](const float* x, const float* factor) {
    const auto quotient = [&](size_t i) {
      __m256 x_f32x8 = _mm256_loadu_ps(x + i);
      if constexpr (kFactors) x_f32x8 = _mm256_mul_ps(x_f32x8, _mm256_loadu_ps(factor + i));
      return divide(_mm256_min_ps(most_f32x8, x_f32x8));
    };
    return packer.pack<kSigned>(quotient(0), quotient(8), quotient(16), quotient(24));
  };
  size_t i = 0;
  for (; i + 32 <= params.n; i += 32)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(params.y + i),
                        quantized(params.x + i, kFactors ? params.factor + i : nullptr));
  if (i == params.n) return;
  float rest[32] = {}, factors[32] = {};
  alignas(32) uint8_t bytes[32];
  for (size_t p = i; p < params.n; ++p) {
    rest[p - i] = params.x[p];
    if constexpr (kFactors) factors[p - i] = params.factor[p];
  }
  _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), quantized(rest, factors));
  for (size_t p = i; p < params.n; ++p) params.y[p] = bytes[p - i];
}

// Quotients of any kind: bounded after the division.
struct BoundedDivider : Divider {
  using Divider::Divider;
  __m256 operator()(__m256 v) const {
    return _mm256_min_ps(_mm256_set1_ps(65536.f), Divider::operator()(v));
  }
};

template <typename Divide>
inline void quantize_bytes(const QuantizeParams& params, float most) {
  const bool factors = params.factor != nullptr;
  if (params.is_signed)
    return factors ? quantize<true, true, Divide>(params, most)
                   : quantize<true, false, Divide>(params, most);
  factors ? quantize<false, true, Divide>(params, most)
          : quantize<false, false, Divide>(params, most);
}

}  // namespace

void quantize_f32_avx2(const QuantizeParams& params) {
  if (is_moderate(params.scale))
    quantize_bytes<ReciprocalDivider>(params, params.scale * 65536.f);
  else
    quantize_bytes<BoundedDivider>(params, __builtin_inff());
}

}  // namespace lepton
