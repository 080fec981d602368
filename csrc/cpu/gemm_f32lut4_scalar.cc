// The reference: group by group, row by row, one sum an element.
#include "ops/gemm_nbits.h"

namespace lepton {
namespace {

constexpr size_t kNr = 8;
constexpr size_t kSlot[8] = {0, 4, 2, 6, 1, 5, 3, 7};

// Adds the products of one group to sum.
void add_group(const GemmNBitsParams& params, const float* lhs, const uint8_t* words, size_t rows,
               float (&sum)[kNr]) {
  for (size_t p = 0; p < rows; p += 8) {
    for (size_t j = 0; j < kNr; ++j) {
      const uint8_t* const bytes = words + (p / 8 * kNr + j) * 4;
      for (size_t s = 0; s < 8; ++s) {
        const unsigned q = s % 2 == 0 ? bytes[s / 2] & 15u : bytes[s / 2] >> 4;
        sum[j] += lhs[p + kSlot[s]] * params.table[q];
      }
    }
  }
}

}  // namespace

void gemm_f32lut4_4x8c8_scalar(const GemmNBitsParams& params) {
  for (size_t i = 0; i < params.m; ++i) {
    const float* const lhs = params.lhs + i * params.lhs_stride;
    float* const dst = params.dst + i * kNr;
    for (size_t j = 0; j < kNr; ++j) dst[j] = 0.f;
    const uint8_t* record = params.weights;
    for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
      const size_t rows = params.k - p < params.group ? params.k - p : params.group;
      const auto* const scale = reinterpret_cast<const float*>(record);
      record += kNr * sizeof(float);
      float sum[kNr] = {};
      add_group(params, lhs + p, record, rows, sum);
      record += rows * kNr / 2;
      for (size_t j = 0; j < kNr; ++j) {
        if (params.zero != nullptr)
          sum[j] -= static_cast<float>(params.zero[g * kNr + j]) *
                    params.lhs_sum[i * params.sum_stride + g];
        dst[j] += sum[j] * scale[j];
      }
    }
  }
}

}  // namespace lepton
