// Depthwise convolution in float32 for any width of vector, channels abreast, pixels outermost, so
// that every input row is read from front to back.
//
// Of a 3x3 window with stride 1 the taps of neighbouring pixels overlap: four pixels take 18 loads
// of inputs and 9 of weights for 36 FMAs, and the limit is the FMA. Other windows take one load per
// FMA, four pixels sharing each weight; there the load ports are the limit. From L2 or beyond both
// are bound by the bandwidth of inputs and results.
//
// V: as in winograd_transforms.h, with clamp(x, min, max). Internal linkage throughout.
#pragma once

#include "cpu/lanes.h"
#include "ops/depthwise.h"

namespace lepton {
namespace {

// Residual and clamp; pixel i, channels from c on.
template <typename V, typename Lanes>
inline void finish(const DepthwiseF32Params& p, size_t i, size_t c, V sum, const Lanes& lanes) {
  if (p.residual != nullptr) sum = sum + lanes.load(p.residual + i * p.residual_step + c);
  lanes.store(p.dst + i * p.dst_step + c, clamp(sum, V::set(p.min), V::set(p.max)));
}

// kPixels pixels from i on, kVectors vectors of channels from c on, tap by tap.
template <typename V, int kPixels, int kVectors, typename Lanes>
inline void any_window(const DepthwiseF32Params& p, size_t i, size_t c, const Lanes& lanes) {
  V sum[kPixels][kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const V bias = p.bias != nullptr ? lanes.load(p.bias + c + V::lanes * v) : V::set(0.f);
#pragma GCC unroll 8
    for (int j = 0; j < kPixels; ++j) sum[j][v] = bias;
  }
  const float* w = p.weights + c;
  for (size_t t = 0; t < p.taps; ++t, w += p.channels) {
    const ptrdiff_t step = p.input_step[t];
    const float* x = p.input[t] + static_cast<ptrdiff_t>(i) * step + c;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const V weight = lanes.load(w + V::lanes * v);
#pragma GCC unroll 8
      for (int j = 0; j < kPixels; ++j)
        sum[j][v] = fma(lanes.load(x + j * step + V::lanes * v), weight, sum[j][v]);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kPixels; ++j)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) finish(p, i + j, c + V::lanes * v, sum[j][v], lanes);
}

// Three rows of three taps whose columns are as far apart as the pixels (or all padding).
inline bool is_dense_3x3(const DepthwiseF32Params& p) {
  if (p.taps != 9) return false;
  for (size_t t = 0; t < 9; ++t) {
    const size_t row = t / 3 * 3;
    const float* const expected =
        p.input[row] + static_cast<ptrdiff_t>(t - row) * p.input_step[row];
    if (p.input_step[t] != p.input_step[row] || p.input[t] != expected) return false;
  }
  return true;
}

// kPixels pixels of such a window, one vector: each input meets every output that it belongs to.
template <typename V, int kPixels, typename Lanes>
inline void dense_3x3(const DepthwiseF32Params& p, size_t i, size_t c, const Lanes& lanes) {
  V sum[kPixels];
  const V bias = p.bias != nullptr ? lanes.load(p.bias + c) : V::set(0.f);
#pragma GCC unroll 8
  for (int j = 0; j < kPixels; ++j) sum[j] = bias;
#pragma GCC unroll 3
  for (int row = 0; row < 9; row += 3) {
    const float* const w = p.weights + row * p.channels + c;
    const V weight[3] = {lanes.load(w), lanes.load(w + p.channels), lanes.load(w + 2 * p.channels)};
    const ptrdiff_t step = p.input_step[row];
    const float* x = p.input[row] + static_cast<ptrdiff_t>(i) * step + c;
#pragma GCC unroll 8
    for (int column = 0; column < kPixels + 2; ++column, x += step) {
      const V value = lanes.load(x);
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k)
        if (column >= k && column - k < kPixels)
          sum[column - k] = fma(value, weight[k], sum[column - k]);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kPixels; ++j) finish(p, i + j, c, sum[j], lanes);
}

template <typename V, int kPixels>
inline void dense_channels(const DepthwiseF32Params& p, size_t i) {
  size_t c = 0;
  for (; c + V::lanes <= p.channels; c += V::lanes) dense_3x3<V, kPixels>(p, i, c, Whole<V>{});
  if (c < p.channels) dense_3x3<V, kPixels>(p, i, c, First<V>{p.channels - c});
}

// A single pixel has no other chains of FMAs to hide the latency than those of more channels.
template <typename V, int kPixels>
inline void any_channels(const DepthwiseF32Params& p, size_t i) {
  constexpr int kVectors = kPixels == 1 ? 4 : 2;
  size_t c = 0;
  for (; c + kVectors * V::lanes <= p.channels; c += kVectors * V::lanes)
    any_window<V, kPixels, kVectors>(p, i, c, Whole<V>{});
  for (; c + V::lanes <= p.channels; c += V::lanes) any_window<V, kPixels, 1>(p, i, c, Whole<V>{});
  if (c < p.channels) any_window<V, kPixels, 1>(p, i, c, First<V>{p.channels - c});
}

template <typename V>
inline void depthwise_rows(const DepthwiseF32Params& params) {
  const DepthwiseF32Params p = params;  // stores to dst cannot alias a copy
  size_t i = 0;
  if (is_dense_3x3(p)) {
    for (; i + 4 <= p.pixels; i += 4) dense_channels<V, 4>(p, i);
    for (; i + 2 <= p.pixels; i += 2) dense_channels<V, 2>(p, i);
    for (; i < p.pixels; ++i) dense_channels<V, 1>(p, i);
  } else {
    for (; i + 4 <= p.pixels; i += 4) any_channels<V, 4>(p, i);
    for (; i < p.pixels; ++i) any_channels<V, 1>(p, i);
  }
  for (size_t t = 0; t < p.taps; ++t)
    p.input[t] += static_cast<ptrdiff_t>(p.pixels) * p.input_step[t];
}

}  // namespace
}  // namespace lepton
