// The reference: one row of eight accumulators at a time, two rows of weights a step, each a float
// by its place in the upper half of a word. Each element is summed over p in order with separate
// multiply and add.
#include "ops/gemm_bf16.h"

namespace lepton {
namespace {

constexpr size_t kNr = 8;

inline float as_float(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

void gemm_bf16_4x8_scalar(const GemmBf16Params& params) {
  for (size_t i = 0; i < params.m; ++i) {
    const float* const lhs = params.lhs + i * params.lhs_stride;
    float sum[kNr] = {};
    for (size_t p = 0; p < params.k; ++p) {
      const uint16_t* const row = params.rhs + p / 2 * (2 * kNr) + p % 2;
      for (size_t j = 0; j < kNr; ++j) sum[j] += lhs[p] * as_float(row[2 * j]);
    }
    for (size_t j = 0; j < kNr; ++j) params.dst[i * kNr + j] = sum[j];
  }
}

void unpack_bf16_8_scalar(const uint16_t* panel, size_t k, float* dst) {
  for (size_t p = 0; p < k; ++p, dst += kNr) {
    const uint16_t* const row = panel + p / 2 * (2 * kNr) + p % 2;
    for (size_t j = 0; j < kNr; ++j) dst[j] = as_float(row[2 * j]);
  }
}

}  // namespace lepton
