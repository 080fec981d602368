// The convolution drivers behind the factories of conv.cc, by kernel family.
#pragma once

#include "ops/conv_geometry.h"

namespace lepton {

// Residual operand of a float convolution: X, W, bias, residual.
constexpr int kFloatResidual = 3;

Status make_depthwise_f32(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out);
Status make_depthwise_s8(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out);
Status make_gemm_conv_f32(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out);
Status make_winograd_conv_f32(const StepDesc& step, const ConvAttrs& conv,
                              std::unique_ptr<Op>* out);
Status make_winograd_conv_s8(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out);
Status make_gemm_conv_s8(const StepDesc& step, const ConvAttrs& conv, std::unique_ptr<Op>* out);

}  // namespace lepton
