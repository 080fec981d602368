// The reference: group by group, one exact sum for each digit of an element.
#include "ops/gemm_s8u4.h"

#include <cmath>

namespace lepton {
namespace {

constexpr size_t kNr = 16;

struct Sums {
  int32_t digit[3];
};

template <bool kTable>
Sums sum_group(const GemmS8U4Params& params, const int8_t* lhs, const int32_t* start,
               const uint8_t* words, size_t rows) {
  Sums sums = {};
  for (size_t d = 0; d < params.digits; ++d) sums.digit[d] = start[d];
  for (size_t p = 0; p < rows; p += 8) {
    const uint8_t* const bytes = words + p / 8 * kNr * 4;
    const int8_t* const digits = lhs + p / 8 * params.m * params.digits * 8;
    for (size_t s = 0; s < 8; ++s) {
      const unsigned q = s < 4 ? bytes[s] & 15u : bytes[s - 4] >> 4;
      const int32_t value = kTable ? params.table[q] : static_cast<int32_t>(q);
      for (size_t d = 0; d < params.digits; ++d) sums.digit[d] += value * digits[d * 8 + s];
    }
  }
  return sums;
}

template <bool kTable>
void panel(const GemmS8U4Params& params, const uint8_t* record, const int8_t* zero, float* dst) {
  const int8_t* lhs = params.lhs;
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const size_t rows = params.k - p < params.group ? params.k - p : params.group;
    const auto* const scale = reinterpret_cast<const float*>(record);
    record += kNr * sizeof(float);
    for (size_t i = 0; i < params.m; ++i) {
      const size_t at = g * params.m + i;
      const int32_t* const start = params.start + at * params.digits;
      for (size_t j = 0; j < kNr; ++j) {
        const Sums sums =
            sum_group<kTable>(params, lhs + i * params.digits * 8, start, record + j * 4, rows);
        float v = static_cast<float>(sums.digit[params.digits - 1]);
        for (size_t d = params.digits - 1; d-- > 0;)
          v = std::fma(v, 256.f, static_cast<float>(sums.digit[d]));
        if (zero != nullptr)
          v = std::fma(-static_cast<float>(zero[g * kNr + j]), params.lhs_sum[at], v);
        float* const to = dst + i * kPanelsS8U4 * kNr + j;
        *to = std::fma(v, params.lhs_scale[at] * scale[j], g == 0 ? 0.f : *to);
      }
    }
    lhs += rows * params.m * params.digits;
    record += rows * kNr / 2;
  }
}

template <bool kTable>
void tile(const GemmS8U4Params& params) {
  for (size_t c = 0; c < params.panels; ++c) {
    const size_t at = c * params.panel_stride;
    panel<kTable>(params, params.weights + at, params.zero == nullptr ? nullptr : params.zero + at,
                  params.dst + c * kNr);
  }
}

}  // namespace

void gemm_s8u4_8x16c8_scalar(const GemmS8U4Params& params) { tile<false>(params); }

void gemm_s8lut4_8x16c8_scalar(const GemmS8U4Params& params) { tile<true>(params); }

}  // namespace lepton
