// Rotary position embedding, one pair at a time.
#include <cstddef>
#include <cstdint>

#include "ops/rotary.h"

namespace lepton {
namespace {

void turn(const float* cos, const float* sin, size_t i, float a, float b, float* y_a, float* y_b) {
  *y_a = cos[i] * a - sin[i] * b;
  *y_b = sin[i] * a + cos[i] * b;
}

void halves(const float* x, const float* cos, const float* sin, size_t half, float* y) {
  for (size_t i = 0; i < half; ++i) turn(cos, sin, i, x[i], x[half + i], y + i, y + half + i);
}

void interleaved(const float* x, const float* cos, const float* sin, size_t half, float* y) {
  for (size_t i = 0; i < half; ++i)
    turn(cos, sin, i, x[2 * i], x[2 * i + 1], y + 2 * i, y + 2 * i + 1);
}

}  // namespace

RotaryKernels rotary_f32_scalar() { return {halves, interleaved}; }

}  // namespace lepton
