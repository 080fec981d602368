#include "ops/conv_quantized.h"

#include <string>

#include "ops/requantize.h"

namespace lepton {
namespace {

Status choose_kind(const StepDesc& step, ConvQuantization* q) {
  const DType out = step.outputs[0];
  const bool residual = step.has_input(kConvResidual);
  if (residual && !is_8_bit(step.inputs[kConvResidual].dtype))
    return unsupported("a residual that is not 8 bit");
  if (is_8_bit(out)) {
    const DType added = residual ? step.inputs[kConvResidual].dtype : DType::kUndefined;
    LEPTON_RETURN_IF_ERROR(read_requantize(*step.attrs, out, added, &q->kind, &q->requantize));
    q->r_signed = added == DType::kS8;
    q->dst_size = 1;
  } else if ((out == DType::kF32 || out == DType::kS32) && !residual) {
    q->kind = out == DType::kF32 ? EpilogueS8Kind::kF32 : EpilogueS8Kind::kS32;
    q->dst_size = 4;
  } else {
    return unsupported("a quantised convolution to " + std::string(name_of(out)) +
                       (residual ? " with a residual" : ""));
  }
  if (!step.has_input(kConvScale) && q->kind != EpilogueS8Kind::kS32)
    return invalid_model("scale is missing");
  return {};
}

}  // namespace

Status parse_conv_quantization(const StepDesc& step, const ConvAttrs& conv, ConvQuantization* q) {
  if (step.inputs.size() < 2 || step.outputs.size() != 1 || !step.has_input(0))
    return invalid_model("a quantised convolution takes X, W, bias, scale, residual");
  const DType x = step.inputs[0].dtype;
  if (!is_8_bit(x)) return unsupported("a quantised convolution of " + std::string(name_of(x)));
  LEPTON_RETURN_IF_ERROR(choose_kind(step, q));
  const auto vector = [&](int i, DType dtype, const char* name) {
    return step.has_input(i) ? expect_vector(step.inputs[i], dtype, conv.out_channels, name)
                             : Status();
  };
  LEPTON_RETURN_IF_ERROR(vector(kConvBias, DType::kS32, "bias"));
  LEPTON_RETURN_IF_ERROR(vector(kConvScale, DType::kF32, "scale"));
  q->x_signed = x == DType::kS8;
  q->zero_point_at_run = step.has_input(kConvZeroPoint);
  if (q->zero_point_at_run && step.inputs[kConvZeroPoint].dtype != x)
    return invalid_model("x_zero_point has another dtype than X");
  LEPTON_RETURN_IF_ERROR(read_zero_point(*step.attrs, "x_zero_point", x, &q->x_zero_point));
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &q->min, &q->max));
  q->epilogue = best_epilogue_s8(q->kind, step.isa);
  return {};
}

Status expect_residual(const BindContext& context, int operand, const Shape& y) {
  if (operand >= context.num_inputs() || !context.input(operand).present) return {};
  const Shape& shape = context.input(operand).shape;
  return shape == y
             ? Status()
             : invalid_input("the residual has shape " + shape.str() + ", the result " + y.str());
}

}  // namespace lepton
