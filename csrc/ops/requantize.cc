#include "ops/requantize.h"

#include <cmath>
#include <limits>
#include <string>

namespace lepton {
namespace {

constexpr int64_t lowest(DType t) { return t == DType::kS8 ? -128 : 0; }
constexpr int64_t highest(DType t) { return t == DType::kS8 ? 127 : 255; }

Status read_scale(const Attrs& attrs, const char* name, float* value) {
  *value = attrs.f(name, 1.f);
  if (!(*value > 0.f) || !std::isfinite(*value))
    return invalid_model(std::string(name) + " must be positive and finite");
  return {};
}

// The bounds `low_name`, `high_name` within [least, most], which are also their defaults.
Status read_bounds(const Attrs& attrs, const char* low_name, const char* high_name, int64_t least,
                   int64_t most, int32_t* low, int32_t* high) {
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, low_name, least, least, most, low));
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, high_name, most, least, most, high));
  return *low <= *high ? Status() : invalid_model(std::string(low_name) + " is above " + high_name);
}

}  // namespace

Status read_integer(const Attrs& attrs, const char* name, int64_t otherwise, int64_t lo, int64_t hi,
                    int32_t* value) {
  const int64_t v = attrs.i(name, otherwise);
  if (v < lo || v > hi)
    return invalid_model(std::string(name) + " = " + std::to_string(v) + " is out of range");
  *value = static_cast<int32_t>(v);
  return {};
}

Status read_zero_point(const Attrs& attrs, const char* name, DType dtype, int32_t* value) {
  return read_integer(attrs, name, 0, lowest(dtype), highest(dtype), value);
}

Status read_clamp(const Attrs& attrs, float* min, float* max) {
  *min = attrs.f("min", -std::numeric_limits<float>::infinity());
  *max = attrs.f("max", std::numeric_limits<float>::infinity());
  return *min <= *max ? Status() : invalid_model("min is above max");
}

Status read_requantize(const Attrs& attrs, DType output, DType residual, EpilogueS8Kind* kind,
                       Requantize* r) {
  const int64_t lo = lowest(output), hi = highest(output);
  const bool adds = residual != DType::kUndefined;
  *kind = adds ? EpilogueS8Kind::kRequantizeSum : EpilogueS8Kind::kRequantize;
  if (adds) {
    LEPTON_RETURN_IF_ERROR(read_scale(attrs, "r_scale", &r->r_scale));
    LEPTON_RETURN_IF_ERROR(read_zero_point(attrs, "r_zero_point", residual, &r->r_zero_point));
  }
  if (!adds || !attrs.has("q_scale")) {
    LEPTON_RETURN_IF_ERROR(read_zero_point(attrs, "y_zero_point", output, &r->zero_point));
    return read_bounds(attrs, "lo", "hi", lo, hi, &r->lo, &r->hi);
  }
  *kind = EpilogueS8Kind::kRequantizeAdd;
  // q may be of either sign, whatever the output is.
  LEPTON_RETURN_IF_ERROR(read_integer(attrs, "y_zero_point", 0, -128, 255, &r->zero_point));
  LEPTON_RETURN_IF_ERROR(read_bounds(attrs, "lo", "hi", -128, 255, &r->lo, &r->hi));
  LEPTON_RETURN_IF_ERROR(read_scale(attrs, "q_scale", &r->q_scale));
  LEPTON_RETURN_IF_ERROR(read_scale(attrs, "out_scale", &r->out_scale));
  LEPTON_RETURN_IF_ERROR(read_zero_point(attrs, "out_zero_point", output, &r->out_zero_point));
  return read_bounds(attrs, "out_lo", "out_hi", lo, hi, &r->out_lo, &r->out_hi);
}

}  // namespace lepton
