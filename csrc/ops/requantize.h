// Reads the requantisation attributes that fused integer operators share, checked against the
// ranges that the epilogues rely on.
#pragma once

#include "core/dtype.h"
#include "core/status.h"
#include "ops/epilogue.h"
#include "ops/op.h"

namespace lepton {

constexpr bool is_8_bit(DType t) { return t == DType::kU8 || t == DType::kS8; }

// Attribute `name` as an integer in [lo, hi].
Status read_integer(const Attrs& attrs, const char* name, int64_t otherwise, int64_t lo, int64_t hi,
                    int32_t* value);
// Attribute `name` as an integer that dtype (u8 or s8) holds.
Status read_zero_point(const Attrs& attrs, const char* name, DType dtype, int32_t* value);

// min and max of a float output; no clamp where absent.
Status read_clamp(const Attrs& attrs, float* min, float* max);

// What makes an 8-bit output: kRequantize, and with a residual (dtype not kUndefined)
// kRequantizeSum, or kRequantizeAdd where there is an attribute q_scale. Attributes: y_zero_point,
// lo, hi, and with a residual r_scale and r_zero_point; for kRequantizeAdd the former are those of
// the intermediate q, and there are q_scale, out_scale, out_zero_point, out_lo and out_hi besides.
Status read_requantize(const Attrs& attrs, DType output, DType residual, EpilogueS8Kind* kind,
                       Requantize* requantize);

}  // namespace lepton
