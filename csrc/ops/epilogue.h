// Epilogues: what happens to a finished accumulator tile before it reaches memory. One definition for
// gemm and convolution, so requantisation has one meaning everywhere.
//
// Integer accumulators (acc int32):
//   to f32:  y = float(acc + bias[j]) · scale[j], then activation clamp [min, max]
//   to 8 bit: q = clamp(rint(float(acc + bias[j]) · scale[j]) + zero_point, lo, hi)
//             rint: ties to even. scale[j] = (x_scale · w_scale[j]) / y_scale, computed in f32 in
//             this order. acc + bias wraps modulo 2^32. lo/hi carry a fused Relu or Clip.
//   residual (8 bit): r of the same shape as dst is added after that rounding:
//             v = (float(q) − zero_point)·q_scale + (float(r) − r_zero_point)·r_scale
//             dst = clamp(rint(v / out_scale) + out_zero_point, out_lo, out_hi)
// Float accumulators (acc f32): y = clamp(acc + bias[j] + residual, min, max).
//
// acc: [m][acc_stride]; bias, scale: nr readable entries (padded by the packer / lower); dst and
// residual: rows dst_stride / residual_stride elements apart, n columns (n <= nr), nothing beyond
// column n or row m is read or written. bias, residual may be null.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct EpilogueF32Params {
  size_t m, n;
  const float* acc;
  size_t acc_stride;
  const float* bias;
  const float* residual;
  size_t residual_stride;
  float min, max;
  float* dst;
  size_t dst_stride;
};
using EpilogueF32Kernel = void (*)(const EpilogueF32Params&);

// Quantised-domain constants of one layer.
struct Requantize {
  int32_t zero_point, lo, hi;          // of the (intermediate) output q
  float q_scale, r_scale, out_scale;   // residual only
  int32_t r_zero_point, out_zero_point, out_lo, out_hi;
};

struct EpilogueS8Params {
  size_t m, n;
  const int32_t* acc;
  size_t acc_stride;
  const int32_t* bias;
  const float* scale;
  const void* residual;  // same 8-bit type as r_signed says
  size_t residual_stride;
  bool r_signed;    // residual is s8 (else u8)
  bool dst_signed;  // dst is s8 (else u8); ignored by to_f32
  Requantize requantize;
  float min, max;  // to_f32 only
  void* dst;       // uint8_t/int8_t, float or int32_t
  size_t dst_stride;
};
using EpilogueS8Kernel = void (*)(const EpilogueS8Params&);

}  // namespace lepton
