// Software conversions of float16 and bfloat16, for portable code. Bit patterns travel as uint16_t.
#pragma once

#include <cstdint>
#include <cstring>

namespace lepton {

inline uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u;
}
inline float float_of(uint32_t u) {
  float x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

inline float f32_from_bf16(uint16_t h) { return float_of(uint32_t{h} << 16); }

inline uint16_t bf16_from_f32(float x) {
  const uint32_t u = bits_of(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40);  // quiet NaN
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

inline float f32_from_f16(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u)  // infinity or NaN, made quiet
    return float_of(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13) |
                    (magnitude > 0x7c00u ? 0x400000u : 0u));
  if (magnitude >= 0x0400u) return float_of(sign | ((magnitude << 13) + 0x38000000u));
  const float denormal = static_cast<float>(magnitude) * 0x1p-24f;
  return float_of(sign | bits_of(denormal));
}

inline uint16_t f16_from_f32(float x) {
  const uint32_t u = bits_of(x);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (magnitude >= 0x38800000u) {
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
  }
  // Denormal result: adding 0.5 puts the rounding position at the float's last bit.
  const float shifted = float_of(magnitude) + 0.5f;
  return static_cast<uint16_t>(sign | (bits_of(shifted) - 0x3f000000u));
}

// The float next to x towards zero or away such that a later rounding to fewer bits sees whether
// anything was cut off ("round to odd"): double → half in two exact steps.
inline float f32_round_to_odd(double x) {
  const float nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || x != x) return nearest;
  uint32_t u = bits_of(nearest);
  if (u & 1) return nearest;
  const bool too_large = (nearest < 0 ? -static_cast<double>(nearest) : nearest) > (x < 0 ? -x : x);
  u = too_large ? u - 1 : u + 1;
  return float_of(u);
}

}  // namespace lepton
