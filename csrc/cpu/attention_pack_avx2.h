// The packers of attention, for AVX2 and what builds on it: keys go through 8x8 transposes in
// registers, values are copied. Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstddef>

#include "cpu/math_avx2.h"

namespace lepton {
namespace {

inline void transpose8x8(__m256 (&r)[8]) {
  __m256 t[8];
#pragma GCC unroll 4
  for (size_t i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (size_t i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const __m256 low = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    r[i] = low;
  }
}

// Rows of one head lie apart, where the hardware does not prefetch.
inline void fetch_rows(const float* x, size_t stride, size_t rows, size_t depth) {
  for (size_t i = 0; i < rows; ++i)
    for (size_t d = 0; d < depth; d += 16)
      _mm_prefetch(reinterpret_cast<const char*>(x + i * stride + d), _MM_HINT_T0);
}

// Lanes [d, d + 8) of eight keys to packed[d * width …].
inline void pack_whole(const float* keys, size_t stride, size_t width, float* packed) {
  __m256 r[8];
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(keys + i * stride);
  transpose8x8(r);
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i) _mm256_storeu_ps(packed + i * width, r[i]);
}

// Eight keys (fewer: zeros) of which lanes [0, depth) go to packed[d * width …].
inline void pack_eight(const float* keys, size_t stride, size_t n, size_t depth, size_t width,
                       float* packed) {
  size_t d = 0;
  for (; n >= 8 && d + 8 <= depth; d += 8) pack_whole(keys + d, stride, width, packed + d * width);
  for (; d < depth; d += 8) {
    const size_t lanes = depth - d < 8 ? depth - d : 8;
    __m256 r[8];
    for (size_t i = 0; i < 8; ++i) {
      const float* key = keys + i * stride + d;
      r[i] = i >= n       ? _mm256_setzero_ps()
             : lanes == 8 ? _mm256_loadu_ps(key)
                          : load_tail(key, lanes);
    }
    transpose8x8(r);
    for (size_t i = 0; i < lanes; ++i) _mm256_storeu_ps(packed + (d + i) * width, r[i]);
  }
}

void pack_keys(const float* keys, size_t stride, size_t n, size_t depth, size_t width,
               float* packed) {
  for (size_t j = 0; j < n; j += width, packed += width * depth)
    for (size_t lane = 0; lane < width; lane += 8) {
      const size_t left = j + lane < n ? n - j - lane : 0;
      if (left > 8)
        fetch_rows(keys + (j + lane + 8) * stride, stride, left < 16 ? left - 8 : 8, depth);
      pack_eight(keys + (j + (left ? lane : 0)) * stride, stride, left, depth, width,
                 packed + lane);
    }
}

void pack_values(const float* values, size_t stride, size_t n, size_t depth, size_t width,
                 float* packed) {
  constexpr size_t kRowsAhead = 8;
  for (size_t c = 0; c < depth; c += width, packed += width * n) {
    const size_t columns = depth - c < width ? depth - c : width;
    for (size_t j = 0; j < n; ++j) {
      const float* x = values + j * stride + c;
      if (j + kRowsAhead < n) fetch_rows(x + kRowsAhead * stride, stride, 1, columns);
      size_t lane = 0;
      for (; lane + 8 <= columns; lane += 8)
        _mm256_storeu_ps(packed + j * width + lane, _mm256_loadu_ps(x + lane));
      for (; lane < width; lane += 8)
        _mm256_storeu_ps(packed + j * width + lane, lane < columns
                                                        ? load_tail(x + lane, columns - lane)
                                                        : _mm256_setzero_ps());
    }
  }
}

}  // namespace
}  // namespace lepton
