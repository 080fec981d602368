// The loops of scalar micro-ops over a tile, around their formula; a splat operand is read with
// stride 0. Internal linkage throughout.
#pragma once

#include <cstddef>

#include "ops/elementwise.h"

namespace lepton {
namespace {

template <typename T>
struct Operand {
  const T* data;
  size_t step;
  Operand(const MicroArgs& x, int i)
      : data(static_cast<const T*>(x.in[i])), step(x.splat >> i & 1 ? 0 : 1) {}
  T operator[](size_t i) const { return data[i * step]; }
};

template <typename T, typename F>
void run1(const MicroArgs& x, F f) {
  const Operand<T> a(x, 0);
  T* out = static_cast<T*>(x.out);
  for (size_t i = 0; i < x.n; ++i) out[i] = f(a[i]);
}
template <typename T, typename F>
void run2(const MicroArgs& x, F f) {
  const Operand<T> a(x, 0), b(x, 1);
  T* out = static_cast<T*>(x.out);
  for (size_t i = 0; i < x.n; ++i) out[i] = f(a[i], b[i]);
}
template <typename T, typename F>
void run3(const MicroArgs& x, F f) {
  const Operand<T> a(x, 0), b(x, 1), c(x, 2);
  T* out = static_cast<T*>(x.out);
  for (size_t i = 0; i < x.n; ++i) out[i] = f(a[i], b[i], c[i]);
}

}  // namespace
}  // namespace lepton
