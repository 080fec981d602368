// The reference: group by group, row by row, one sum an element.
#include "ops/gemm_nbits.h"

namespace lepton {

void gemm_f32s8_4x8_scalar(const GemmNBitsParams& params) {
  constexpr size_t kNr = 8;
  for (size_t i = 0; i < params.m; ++i) {
    const float* const lhs = params.lhs + i * params.lhs_stride;
    float* const dst = params.dst + i * kNr;
    for (size_t j = 0; j < kNr; ++j) dst[j] = 0.f;
    const uint8_t* record = params.weights;
    for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
      const size_t rows = params.k - p < params.group ? params.k - p : params.group;
      const auto* const scale = reinterpret_cast<const float*>(record);
      const auto* const q = reinterpret_cast<const int8_t*>(record + kNr * sizeof(float));
      record += kNr * sizeof(float) + rows * kNr;
      float sum[kNr] = {};
      for (size_t r = 0; r < rows; ++r)
        for (size_t j = 0; j < kNr; ++j) sum[j] += lhs[p + r] * static_cast<float>(q[r * kNr + j]);
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
