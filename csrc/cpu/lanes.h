// All lanes of a vector V (f32x8_avx2.h, f32x16_avx512.h), or its first n, behind one face.
// Internal linkage throughout.
#pragma once

#include <cstddef>

namespace lepton {
namespace {

template <typename V>
struct Whole {
  V load(const float* p) const { return V::load(p); }
  void store(float* p, V x) const { V::store(p, x); }
};
template <typename V>
struct First {
  size_t n;
  V load(const float* p) const { return V::load(p, n); }
  void store(float* p, V x) const { V::store(p, x, n); }
};

}  // namespace
}  // namespace lepton
