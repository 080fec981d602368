// One channel after the other: the transforms of winograd_transforms.h on a plain float.
#include "cpu/winograd_transforms.h"

namespace lepton {
namespace {

struct Single {
  static constexpr size_t lanes = 1;
  float v;

  static Single set(float x) { return {x}; }
  static Single load(const float* p) { return {*p}; }
  static Single load(const float* p, size_t) { return {*p}; }
  static void store(float* p, Single x) { *p = x.v; }
  static void store(float* p, Single x, size_t) { *p = x.v; }
};

inline Single operator+(Single a, Single b) { return {a.v + b.v}; }
inline Single operator-(Single a, Single b) { return {a.v - b.v}; }
inline Single operator*(Single a, Single b) { return {a.v * b.v}; }
inline Single fma(Single a, Single b, Single c) { return {a.v * b.v + c.v}; }

}  // namespace

WinogradKernels winograd_f32_scalar() {
  return {winograd_input<Single>, winograd_output<Single, 4>, winograd_output<Single, 2>};
}

}  // namespace lepton
