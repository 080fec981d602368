// What integer convolutions add to conv_geometry.h: zero points, and what happens to the
// accumulators.
#pragma once

#include "ops/conv_geometry.h"
#include "ops/gemm.h"

namespace lepton {

// Operands of a quantised convolution, after X and W.
constexpr int kConvBias = 2, kConvScale = 3, kConvResidual = 4, kConvZeroPoint = 5;

struct ConvQuantization {
  bool x_signed = false;
  int32_t x_zero_point = 0;
  bool zero_point_at_run = false;  // it is an operand
  EpilogueS8Kind kind = EpilogueS8Kind::kRequantize;
  EpilogueS8Kernel epilogue = nullptr;
  Requantize requantize;
  float min = 0.f, max = 0.f;  // kF32
  bool r_signed = false;
  size_t dst_size = 1;
};

// Reads the attributes that conv.cc documents, and checks dtypes, bias, scale and residual.
Status parse_conv_quantization(const StepDesc& step, const ConvAttrs& conv, ConvQuantization* q);

// The residual, when there is one, has the shape of the result.
Status expect_residual(const BindContext& context, int operand, const Shape& y);

}  // namespace lepton
