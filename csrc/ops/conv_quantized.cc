#include "ops/conv_quantized.h"

#include <cmath>
#include <limits>
#include <string>

namespace lepton {
namespace {

Status read_integer(const Attrs& attrs, const char* name, int64_t otherwise, int64_t lo, int64_t hi,
                    int32_t* value) {
  const int64_t v = attrs.i(name, otherwise);
  if (v < lo || v > hi) return invalid_model(std::string(name) + " is out of its type's range");
  *value = static_cast<int32_t>(v);
  return {};
}

Status read_scale(const Attrs& attrs, const char* name, float* value) {
  *value = attrs.f(name, 1.f);
  if (!(*value > 0.f) || !std::isfinite(*value))
    return invalid_model(std::string(name) + " must be positive and finite");
  return {};
}

bool is_8_bit(DType t) { return t == DType::kU8 || t == DType::kS8; }

// y = clamp(q), the result itself: every bound in its dtype's range.
Status read_requantize(const Attrs& attrs, DType out, Requantize* r) {
  const int64_t lo = out == DType::kU8 ? 0 : -128, hi = lo + 255;
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "y_zero_point", 0, lo, hi, &r->zero_point));
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "lo", lo, lo, hi, &r->lo));
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "hi", hi, lo, hi, &r->hi));
  return r->lo <= r->hi ? Status() : invalid_model("lo is above hi");
}

// q is an intermediate of either sign; the sum with the residual is the result.
Status read_requantize_add(const Attrs& attrs, DType residual, DType out, Requantize* r) {
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "y_zero_point", 0, -128, 255, &r->zero_point));
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "lo", 0, -128, 255, &r->lo));
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "hi", 255, -128, 255, &r->hi));
  LEPTON_RETURN_IF_ERROR(read_scale(attrs, "q_scale", &r->q_scale));
  LEPTON_RETURN_IF_ERROR(read_scale(attrs, "r_scale", &r->r_scale));
  LEPTON_RETURN_IF_ERROR(read_scale(attrs, "out_scale", &r->out_scale));
  const int64_t r_lo = residual == DType::kU8 ? 0 : -128;
  LEPTON_RETURN_IF_ERROR(
      read_integer(attrs, "r_zero_point", 0, r_lo, r_lo + 255, &r->r_zero_point));
  const int64_t lo = out == DType::kU8 ? 0 : -128, hi = lo + 255;
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "out_zero_point", 0, lo, hi, &r->out_zero_point));
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "out_lo", lo, lo, hi, &r->out_lo));
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "out_hi", hi, lo, hi, &r->out_hi));
  return r->lo <= r->hi && r->out_lo <= r->out_hi ? Status() : invalid_model("lo is above hi");
}

Status choose_kind(const StepDesc& step, ConvQuantization* q) {
  const DType out = step.outputs[0];
  const bool residual = step.has_input(kConvResidual);
  if (is_8_bit(out)) {
    q->kind = residual ? EpilogueS8Kind::kRequantizeAdd : EpilogueS8Kind::kRequantize;
    q->dst_size = 1;
  } else if ((out == DType::kF32 || out == DType::kS32) && !residual) {
    q->kind = out == DType::kF32 ? EpilogueS8Kind::kF32 : EpilogueS8Kind::kS32;
    q->dst_size = 4;
  } else {
    return unsupported("a quantised convolution to " + std::string(name_of(out)) +
                       (residual ? " with a residual" : ""));
  }
  if (residual && !is_8_bit(step.inputs[kConvResidual].dtype))
    return unsupported("a residual that is not 8 bit");
  if (!step.has_input(kConvScale) && q->kind != EpilogueS8Kind::kS32)
    return invalid_model("scale is missing");
  return {};
}

}  // namespace

Status parse_conv_quantization(const StepDesc& step, const ConvAttrs& conv, ConvQuantization* q) {
  if (step.inputs.size() < 2 || step.outputs.size() != 1 || !step.has_input(0))
    return invalid_model("a quantised convolution takes X, W, bias, scale, residual");
  const DType x = step.inputs[0].dtype, out = step.outputs[0];
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
  const int64_t x_lo = q->x_signed ? -128 : 0;
  LEPTON_RETURN_IF_ERROR(
      read_integer(*step.attrs, "x_zero_point", 0, x_lo, x_lo + 255, &q->x_zero_point));
  if (q->kind == EpilogueS8Kind::kRequantize)
    LEPTON_RETURN_IF_ERROR(read_requantize(*step.attrs, out, &q->requantize));
  if (q->kind == EpilogueS8Kind::kRequantizeAdd) {
    const DType residual = step.inputs[kConvResidual].dtype;
    q->r_signed = residual == DType::kS8;
    LEPTON_RETURN_IF_ERROR(read_requantize_add(*step.attrs, residual, out, &q->requantize));
  }
  LEPTON_RETURN_IF_ERROR(parse_clamp(*step.attrs, &q->min, &q->max));
  q->epilogue = best_epilogue_s8(q->kind, step.isa);
  return {};
}

Status parse_clamp(const Attrs& attrs, float* min, float* max) {
  *min = attrs.f("min", -std::numeric_limits<float>::infinity());
  *max = attrs.f("max", std::numeric_limits<float>::infinity());
  return *min <= *max ? Status() : invalid_model("min is above max");
}

Status expect_residual(const BindContext& context, int operand, const Shape& y) {
  if (operand >= context.num_inputs() || !context.input(operand).present) return {};
  const Shape& shape = context.input(operand).shape;
  return shape == y
             ? Status()
             : invalid_input("the residual has shape " + shape.str() + ", the result " + y.str());
}

}  // namespace lepton
