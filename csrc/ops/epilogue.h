// Epilogues: what happens to a finished accumulator tile before it reaches memory. One definition
// for gemm and convolution, so requantisation has one meaning everywhere.
//
// Integer accumulators (acc int32):
//   sum = acc + bias[j] − row_zero_point[i] · column_sum[j], modulo 2^32; what is null is left out
//   kS32:        y = sum
//   kF32:        y = clamp(float(sum) · scale[j] · row_scale[i] + float_bias[j] + residual[i][j],
//                min, max), computed in this order; what is null is left out
//   kRequantize: q = clamp(rint(float(sum) · scale[j]) + zero_point, lo, hi)
//                rint: ties to even; NaN gives lo. scale[j] = (x_scale · w_scale[j]) / y_scale,
//                computed in f32 in this order. lo/hi carry a fused Relu or Clip and lie in dst's
//                range.
//   kRequantizeAdd: q as above, then r of the same shape as dst is added after that rounding:
//                v = (float(q) − zero_point)·q_scale + (float(r) − r_zero_point)·r_scale
//                dst = clamp(rint(v / out_scale) + out_zero_point, out_lo, out_hi)
//                q lies in [−255, 255], so it may be u8 or s8 whatever dst is.
//   kRequantizeSum: the residual is added before the only rounding:
//                v = fma(float(r), r_scale, fma(float(sum), scale[j], −r_zero_point · r_scale))
//                dst = clamp(rint(v) + zero_point, lo, hi), as for kRequantize
//                scale[j] and r_scale are those of sum and residual, divided by dst's; fma rounds
//                once, −r_zero_point · r_scale is an f32.
// Float accumulators (acc f32): y = clamp(acc + bias[j] + residual, min, max), added in this order.
// Float clamps keep NaN.
//
// acc: [m][acc_stride]; bias, scale, column_sum, float_bias: n entries; row_zero_point, row_scale:
// m, row_zero_point and column_sum both or neither; dst and residual: rows dst_stride /
// residual_stride elements apart, n columns. m and n are any sizes, 0 included. Exactly these
// elements are read and written, no alignment is asked for. residual may be dst itself; so may the
// f32 acc, with the same stride. bias may be null; so may the f32 residual.
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
  int32_t zero_point = 0, lo = 0, hi = 255;  // of the (intermediate) output q
  float r_scale = 1.f;                       // of a residual
  int32_t r_zero_point = 0;
  float q_scale = 1.f, out_scale = 1.f;  // kRequantizeAdd only, as all below
  int32_t out_zero_point = 0, out_lo = 0, out_hi = 255;
};

// Whether kernels may divide by multiplying with a reciprocal: sums and quotients of a quantised
// addition then neither overflow nor lose bits that matter.
static inline bool scales_are_moderate(const Requantize& r) {
  const auto moderate = [](float scale) { return scale > 0x1p-40f && scale < 0x1p40f; };
  return moderate(r.q_scale) && moderate(r.r_scale) && moderate(r.out_scale);
}

enum class EpilogueS8Kind : uint8_t { kRequantize, kRequantizeAdd, kRequantizeSum, kF32, kS32 };
constexpr bool adds_bytes(EpilogueS8Kind kind) {
  return kind == EpilogueS8Kind::kRequantizeAdd || kind == EpilogueS8Kind::kRequantizeSum;
}
constexpr bool makes_bytes(EpilogueS8Kind kind) {
  return kind == EpilogueS8Kind::kRequantize || adds_bytes(kind);
}

struct EpilogueS8Params {
  size_t m, n;
  const int32_t* acc;
  size_t acc_stride;
  const int32_t* bias;
  const int32_t* row_zero_point;
  const int32_t* column_sum;
  const float* scale;
  const float* row_scale;  // kF32 only, as the next
  const float* float_bias;
  const void* residual;  // adds_bytes: u8 or s8; kF32: float
  size_t residual_stride;
  bool r_signed;  // residual is s8 (else u8)
  Requantize requantize;
  float min, max;  // kF32 only
  void* dst;       // makes_bytes: 8 bit, the sign is in lo and hi; float; int32_t
  size_t dst_stride;
};
using EpilogueS8Kernel = void (*)(const EpilogueS8Params&);

}  // namespace lepton
