// quantize: floats to bytes over one scale and zero point, as QuantizeLinear.
//
//   y[i] = clamp(rint(x[i] · factor[i] / scale) + zero_point, lo, hi), NaN gives lo       i < n
//
// factor: null for ones.
// lo and hi: the range of uint8, or of int8 where is_signed; zero_point lies in it. rint: ties to
// even; bit-identical on every ISA. scale: any float. x and y need no alignment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct QuantizeParams {
  const float* x;
  const float* factor;
  size_t n;
  float scale;
  int32_t zero_point;
  bool is_signed;
  uint8_t* y;
};
using QuantizeKernel = void (*)(const QuantizeParams&);

#define LEPTON_QUANTIZE(name, isa) void name(const QuantizeParams&);
#include "ops/quantize_kernels.inc"
#undef LEPTON_QUANTIZE

}  // namespace lepton
