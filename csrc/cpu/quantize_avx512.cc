// 64 floats at a time through quantize_avx512.h: quotients by multiplication, clamps by saturating
// packs. Bound by L2, with eight instructions for sixteen floats.
#include "cpu/quantize_avx512.h"

#include "ops/quantize_kernels.h"

namespace lepton {
namespace {

template <bool kSigned, typename Divide>
inline void quantize(const QuantizeParams& shared, float most) {
  const QuantizeParams params = shared;
  const Divide divide(params.scale);
  const Packer packer(params.zero_point);
  // What is larger has another quotient, but the same byte. Constant first: NaN passes.
  const __m512 most_f32x16 = _mm512_set1_ps(most);
  for_each_64(
      params.x, params.n, [&](size_t at, __mmask64 mask, __m512 a, __m512 b, __m512 c, __m512 d) {
        const auto quotient = [&](__m512 x) { return divide(_mm512_min_ps(most_f32x16, x)); };
        _mm512_mask_storeu_epi8(
            params.y + at, mask,
            packer.pack<kSigned>(quotient(a), quotient(b), quotient(c), quotient(d)));
      });
}

// Quotients of any kind: bounded after the division.
struct BoundedDivider : Divider {
  using Divider::Divider;
  __m512 operator()(__m512 v) const {
    return _mm512_min_ps(_mm512_set1_ps(65536.f), Divider::operator()(v));
  }
};

}  // namespace

void quantize_f32_avx512(const QuantizeParams& params) {
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
