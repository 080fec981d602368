// The reference: element by element, in the order of the contract. Values are clamped while they
// are still float (the bounds are small integers, so this commutes with rounding) and converted
// after.
#include <cmath>

#include "ops/epilogue.h"

namespace lepton {
namespace {

int32_t sum_of(const EpilogueS8Params& params, size_t i, size_t j) {
  uint32_t sum = static_cast<uint32_t>(params.acc[i * params.acc_stride + j]);
  if (params.bias != nullptr) sum += static_cast<uint32_t>(params.bias[j]);
  if (params.row_zero_point != nullptr)
    sum -= static_cast<uint32_t>(params.row_zero_point[i]) *
           static_cast<uint32_t>(params.column_sum[j]);
  return static_cast<int32_t>(sum);
}

// clamp(rint(v) + zero_point, lo, hi); NaN gives lo. nearbyint rounds ties to even in the default
// mode.
int32_t quantize(float v, int32_t zero_point, int32_t lo, int32_t hi) {
  const float least = static_cast<float>(lo - zero_point);
  const float most = static_cast<float>(hi - zero_point);
  v = v > least ? v : least;
  v = v < most ? v : most;
  return static_cast<int32_t>(std::nearbyint(v)) + zero_point;
}

int32_t requantized(const EpilogueS8Params& params, size_t i, size_t j) {
  const Requantize& q = params.requantize;
  const float v = static_cast<float>(sum_of(params, i, j)) * params.scale[j];
  return quantize(v, q.zero_point, q.lo, q.hi);
}

}  // namespace

void epilogue_s8_requantize_scalar(const EpilogueS8Params& params) {
  auto* const dst = static_cast<uint8_t*>(params.dst);
  for (size_t i = 0; i < params.m; ++i)
    for (size_t j = 0; j < params.n; ++j)
      dst[i * params.dst_stride + j] = static_cast<uint8_t>(requantized(params, i, j));
}

void epilogue_s8_requantize_add_scalar(const EpilogueS8Params& params) {
  const Requantize& r = params.requantize;
  auto* const dst = static_cast<uint8_t*>(params.dst);
  const auto* const residual = static_cast<const uint8_t*>(params.residual);
  for (size_t i = 0; i < params.m; ++i) {
    for (size_t j = 0; j < params.n; ++j) {
      const uint8_t byte = residual[i * params.residual_stride + j];
      const int32_t other = params.r_signed ? static_cast<int8_t>(byte) : byte;
      const float x = static_cast<float>(requantized(params, i, j) - r.zero_point) * r.q_scale;
      const float y = static_cast<float>(other - r.r_zero_point) * r.r_scale;
      dst[i * params.dst_stride + j] = static_cast<uint8_t>(
          quantize((x + y) / r.out_scale, r.out_zero_point, r.out_lo, r.out_hi));
    }
  }
}

void epilogue_s8_requantize_sum_scalar(const EpilogueS8Params& params) {
  const Requantize& q = params.requantize;
  const float offset = static_cast<float>(-q.r_zero_point) * q.r_scale;
  auto* const dst = static_cast<uint8_t*>(params.dst);
  const auto* const residual = static_cast<const uint8_t*>(params.residual);
  for (size_t i = 0; i < params.m; ++i) {
    for (size_t j = 0; j < params.n; ++j) {
      const uint8_t byte = residual[i * params.residual_stride + j];
      const auto r = static_cast<float>(params.r_signed ? static_cast<int8_t>(byte) : byte);
      const auto sum = static_cast<float>(sum_of(params, i, j));
      const float v = std::fma(r, q.r_scale, std::fma(sum, params.scale[j], offset));
      dst[i * params.dst_stride + j] = static_cast<uint8_t>(quantize(v, q.zero_point, q.lo, q.hi));
    }
  }
}

void epilogue_s8_f32_scalar(const EpilogueS8Params& params) {
  auto* const dst = static_cast<float*>(params.dst);
  const auto* const residual = static_cast<const float*>(params.residual);
  for (size_t i = 0; i < params.m; ++i) {
    for (size_t j = 0; j < params.n; ++j) {
      float y = static_cast<float>(sum_of(params, i, j)) * params.scale[j];
      if (params.row_scale != nullptr) y *= params.row_scale[i];
      if (params.float_bias != nullptr) y += params.float_bias[j];
      if (residual != nullptr) y += residual[i * params.residual_stride + j];
      y = y < params.min ? params.min : y;
      dst[i * params.dst_stride + j] = y > params.max ? params.max : y;
    }
  }
}

void epilogue_s8_s32_scalar(const EpilogueS8Params& params) {
  auto* const dst = static_cast<int32_t*>(params.dst);
  for (size_t i = 0; i < params.m; ++i)
    for (size_t j = 0; j < params.n; ++j) dst[i * params.dst_stride + j] = sum_of(params, i, j);
}

}  // namespace lepton
