// The transforms of winograd_f32.h for any width of vector, channels abreast: columns first, into
// 36, 24 or 12 vectors in L1, then rows. ± points share their even and odd parts, so six values
// take twelve operations. Bound by loads and stores: two of each per value.
//
// V is a vector of floats: lanes, set(x), load(p), load(p, n), store(p, v), store(p, v, n) (first n
// lanes only), +, −, and fma(a, b, c) = a · b + c. Internal linkage throughout, so that code of one
// instruction set cannot stand in for another's.
#pragma once

#include "ops/winograd_f32.h"

namespace lepton {
namespace {

constexpr float kRoot = 1.414213562f, kHalfRoot = 0.7071067812f;

// Bᵀ times a column.
template <typename V>
inline void transform_patch(const V (&d)[6], V (&v)[6]) {
  const V even1 = fma(V::set(-2.f), d[2], d[4]), odd1 = fma(V::set(-2.f), d[1], d[3]);
  const V even2 = fma(V::set(-0.5f), d[2], d[4]), odd2 = fma(V::set(-0.5f), d[1], d[3]);
  v[0] = fma(V::set(-2.5f), d[2], d[0] + d[4]);
  v[1] = fma(V::set(kHalfRoot), odd1, even1);
  v[2] = fma(V::set(-kHalfRoot), odd1, even1);
  v[3] = fma(V::set(kRoot), odd2, even2);
  v[4] = fma(V::set(-kRoot), odd2, even2);
  v[5] = fma(V::set(-2.5f), d[3], d[1] + d[5]);
}

// Aᵀ times a column.
template <typename V>
inline void transform_products(const V (&m)[6], V (&y)[4]) {
  const V even1 = m[1] + m[2], odd1 = m[1] - m[2];
  const V even2 = m[3] + m[4], odd2 = m[3] - m[4];
  y[0] = (m[0] + even1) + even2;
  y[1] = fma(V::set(kHalfRoot), odd1, V::set(kRoot) * odd2);
  y[2] = fma(V::set(0.5f), even1, even2 + even2);
  y[3] = fma(V::set(kRoot / 4), odd1, fma(V::set(2 * kRoot), odd2, m[5]));
}

template <typename V>
inline void transform_products(const V (&m)[6], V (&y)[2]) {
  const V even1 = m[1] + m[2], odd1 = m[1] - m[2];
  const V even2 = m[3] + m[4], odd2 = m[3] - m[4];
  y[0] = (m[0] + even1) + even2;
  y[1] = fma(V::set(kHalfRoot), odd1, fma(V::set(kRoot), odd2, m[5]));
}

template <typename V, typename Load, typename Store>
inline void input_channels(const Load& load, const Store& store) {
  V columns[6][6];
#pragma GCC unroll 6
  for (size_t j = 0; j < 6; ++j) {
    const V d[6] = {load(j), load(6 + j), load(12 + j), load(18 + j), load(24 + j), load(30 + j)};
    transform_patch(d, columns[j]);
  }
#pragma GCC unroll 6
  for (size_t i = 0; i < 6; ++i) {
    const V row[6] = {columns[0][i], columns[1][i], columns[2][i],
                      columns[3][i], columns[4][i], columns[5][i]};
    V v[6];
    transform_patch(row, v);
#pragma GCC unroll 6
    for (size_t j = 0; j < 6; ++j) store(6 * i + j, v[j]);
  }
}

template <typename V>
void winograd_input(const WinogradInputParams& params) {
  const WinogradInputParams p = params;  // stores to v cannot alias a copy
  size_t c = 0;
  for (; c + V::lanes <= p.channels; c += V::lanes)
    input_channels<V>([&](size_t e) { return V::load(p.pixels[e] + c); },
                      [&](size_t e, V v) { V::store(p.v + e * p.v_step + c, v); });
  const size_t left = p.channels - c;
  if (left > 0)
    input_channels<V>([&](size_t e) { return V::load(p.pixels[e] + c, left); },
                      [&](size_t e, V v) { V::store(p.v + e * p.v_step + c, v, left); });
}

template <typename V, size_t kTile>
inline void output_channels(const float* m, size_t m_step, float* y, size_t y_step) {
  V columns[6][kTile];
#pragma GCC unroll 6
  for (size_t j = 0; j < 6; ++j) {
    V d[6];
#pragma GCC unroll 6
    for (size_t i = 0; i < 6; ++i) d[i] = V::load(m + (6 * i + j) * m_step);
    transform_products(d, columns[j]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < kTile; ++i) {
    const V row[6] = {columns[0][i], columns[1][i], columns[2][i],
                      columns[3][i], columns[4][i], columns[5][i]};
    V out[kTile];
    transform_products(row, out);
#pragma GCC unroll 4
    for (size_t j = 0; j < kTile; ++j) V::store(y + (kTile * i + j) * y_step, out[j]);
  }
}

template <typename V, size_t kTile>
void winograd_output(const WinogradOutputParams& params) {
  const WinogradOutputParams p = params;
  const float* panel = p.m;
  for (size_t c = 0; c < p.channels; panel += p.panel_step)
    for (size_t lane = 0; lane < p.width && c < p.channels; lane += V::lanes, c += V::lanes)
      output_channels<V, kTile>(panel + lane, p.m_step, p.y + c, p.y_step);
}

}  // namespace
}  // namespace lepton
