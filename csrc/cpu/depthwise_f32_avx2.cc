// Depthwise convolution, float32, AVX2 + FMA.
//
// Vectors run over channels. Four neighbouring output pixels share each weight load, so that of the
// two loads a cycle nearly all bring activations: 16 channels · 4 pixels are eight independent
// chains of FMAs with a memory operand, which hides the FMA latency. Limit: the load ports (one
// activation vector per FMA).
#include <immintrin.h>

#include "ops/depthwise.h"

namespace lepton {
namespace {

// One vector of channels: whole, or its first lanes under a mask.
struct Whole {
  __m256 load(const float* p) const { return _mm256_loadu_ps(p); }
  void store(float* p, __m256 v) const { _mm256_storeu_ps(p, v); }
};
struct Masked {
  __m256i mask;
  __m256 load(const float* p) const { return _mm256_maskload_ps(p, mask); }
  void store(float* p, __m256 v) const { _mm256_maskstore_ps(p, mask, v); }
};

alignas(32) const int32_t kMaskSource[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                             0,  0,  0,  0,  0,  0,  0,  0};

// The kPixels pixels that input points at, pixel i being the first; kVectors vectors of channels
// from channel c on.
template <int kPixels, int kVectors, typename Lanes>
inline void tile(const DepthwiseF32Params& p, size_t i, size_t c, const Lanes& lanes) {
  __m256 sum_f32x8[kPixels][kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const __m256 bias = p.bias != nullptr ? lanes.load(p.bias + c + 8 * v) : _mm256_setzero_ps();
#pragma GCC unroll 8
    for (int j = 0; j < kPixels; ++j) sum_f32x8[j][v] = bias;
  }
  const float* w = p.weights + c;
  for (size_t t = 0; t < p.taps; ++t, w += p.channels) {
    const ptrdiff_t step = p.input_step[t];
    const float* x = p.input[t] + c;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const __m256 w_f32x8 = lanes.load(w + 8 * v);
#pragma GCC unroll 8
      for (int j = 0; j < kPixels; ++j)
        sum_f32x8[j][v] =
            _mm256_fmadd_ps(lanes.load(x + j * step + 8 * v), w_f32x8, sum_f32x8[j][v]);
    }
  }
  const __m256 min = _mm256_set1_ps(p.min), max = _mm256_set1_ps(p.max);
#pragma GCC unroll 8
  for (int j = 0; j < kPixels; ++j) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      __m256 y = sum_f32x8[j][v];
      if (p.residual != nullptr)
        y = _mm256_add_ps(y, lanes.load(p.residual + (i + j) * p.residual_step + c + 8 * v));
      // Operand order keeps a NaN, as the scalar comparison does.
      y = _mm256_min_ps(max, _mm256_max_ps(min, y));
      lanes.store(p.dst + (i + j) * p.dst_step + c + 8 * v, y);
    }
  }
}

template <int kPixels>
inline void all_channels(const DepthwiseF32Params& p, size_t i) {
  size_t c = 0;
  for (; c + 16 <= p.channels; c += 16) tile<kPixels, 2>(p, i, c, Whole{});
  if (c + 8 <= p.channels) {
    tile<kPixels, 1>(p, i, c, Whole{});
    c += 8;
  }
  if (c < p.channels) {
    const int32_t* source = kMaskSource + 8 - (p.channels - c);
    const Masked rest{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source))};
    tile<kPixels, 1>(p, i, c, rest);
  }
  for (size_t t = 0; t < p.taps; ++t) p.input[t] += kPixels * p.input_step[t];
}

}  // namespace

void depthwise_f32_avx2(const DepthwiseF32Params& p) {
  size_t i = 0;
  for (; i + 4 <= p.pixels; i += 4) all_channels<4>(p, i);
  for (; i < p.pixels; ++i) all_channels<1>(p, i);
}

}  // namespace lepton
