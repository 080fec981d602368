// 64 floats at a time through quantize_avx512.h: quotients by multiplication, clamps by saturating
// packs. Bound by L2, with eight instructions for sixteen floats.
#include "cpu/quantize_avx512.h"

#include "ops/quantize_kernels.h"

namespace lepton {
namespace {

template <bool kSigned, bool kFactors, typename Divide>
inline void quantize(const QuantizeParams& shared, float most) {
  const QuantizeParams params = shared;
  const Divide divide(params.scale);
  const Packer packer(params.zero_point);
  // What is larger has another quotient, but the same byte. Constant first: NaN passes.
  const __m512 most_f32x16 = _mm512_set1_ps(most);
  for_each_64(params.x, params.n,
              [&](size_t at, __mmask64 mask, __m512 a, __m512 b, __m512 c, __m512 d) {
                const auto quotient = [&](__m512 x, size_t part) {
                  if constexpr (kFactors) {
                    const __mmask16 some = static_cast<__mmask16>(mask >> part);
                    x = _mm512_mul_ps(x, _mm512_maskz_loadu_ps(some, params.factor + at + part));
                  }
                  return divide(_mm512_min_ps(most_f32x16, x));
                };
                _mm512_mask_storeu_epi8(params.y + at, mask,
                                        packer.pack<kSigned>(quotient(a, 0), quotient(b, 16),
                                                             quotient(c, 32), quotient(d, 48)));
              });
}

// Quotients of any kind: bounded after the division.
struct BoundedDivider : Divider {
  using Divider::Divider;
  __m512 operator()(__m512 v) const {
    return _mm512_min_ps(_mm512_set1_ps(65536.f), Divider::operator()(v));
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

void quantize_f32_avx512(const QuantizeParams& params) {
  if (is_moderate(params.scale))
    quantize_bytes<ReciprocalDivider>(params, params.scale * 65536.f);
  else
    quantize_bytes<BoundedDivider>(params, __builtin_inff());
}

}  // namespace lepton
