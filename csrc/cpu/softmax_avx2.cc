// Three passes over a row in L1: maximum, exponentials with their sum, scale; bound by the
// polynomial of exp. Columns run the same passes on eight columns abreast. A NaN anywhere makes its
// exponential and so the sum NaN, hence the maximum need not carry it.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx2.h"
#include "ops/softmax.h"

namespace lepton {
namespace {

inline float max_of(const float* x, size_t n) {
  __m256 a = set1(-__builtin_inff()), b = a;
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    a = _mm256_max_ps(_mm256_loadu_ps(x + i), a);
    b = _mm256_max_ps(_mm256_loadu_ps(x + i + 8), b);
  }
  for (; i + 8 <= n; i += 8) a = _mm256_max_ps(_mm256_loadu_ps(x + i), a);
  if (i < n) {
    const __m256 lanes = _mm256_castsi256_ps(tail_mask(n - i));
    b = _mm256_max_ps(select(lanes, load_tail(x + i, n - i), set1(-__builtin_inff())), b);
  }
  return max_lanes(_mm256_max_ps(a, b));
}

// Sum of the exponentials; stores them unless y is null.
template <bool kStore>
inline float exp_and_sum(const float* x, float* y, size_t n, __m256 max) {
  __m256 sum = _mm256_setzero_ps();
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 e = exp_f32x8(_mm256_sub_ps(_mm256_loadu_ps(x + i), max));
    if (kStore) _mm256_storeu_ps(y + i, e);
    sum = _mm256_add_ps(sum, e);
  }
  if (i < n) {
    const __m256 e = exp_f32x8(_mm256_sub_ps(load_tail(x + i, n - i), max));
    if (kStore) store_tail(y + i, e, n - i);
    sum = _mm256_add_ps(sum, and_(_mm256_castsi256_ps(tail_mask(n - i)), e));
  }
  return sum_lanes(sum);
}

template <typename F>
inline void map_row(const float* x, float* y, size_t n, const F& f) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, f(_mm256_loadu_ps(x + i)));
  if (i < n) store_tail(y + i, f(load_tail(x + i, n - i)), n - i);
}

inline __m256 log_of(__m256 sum) { return log_f32x8(sum); }

void row(const float* x, float* y, size_t n, bool log) {
  const __m256 max = set1(max_of(x, n));
  if (log) {
    const __m256 log_sum = log_of(set1(exp_and_sum<false>(x, nullptr, n, max)));
    map_row(x, y, n, [=](__m256 v) { return _mm256_sub_ps(_mm256_sub_ps(v, max), log_sum); });
  } else {
    const __m256 inverse = set1(1.0f / exp_and_sum<true>(x, y, n, max));
    map_row(y, y, n, [=](__m256 v) { return _mm256_mul_ps(v, inverse); });
  }
}

struct Whole {
  __m256 load(const float* p) const { return _mm256_loadu_ps(p); }
  void store(float* p, __m256 v) const { _mm256_storeu_ps(p, v); }
};
struct Masked {
  size_t lanes;
  __m256 load(const float* p) const { return load_tail(p, lanes); }
  void store(float* p, __m256 v) const { store_tail(p, v, lanes); }
};

template <typename Access>
inline void eight_columns(const float* x, float* y, size_t n, size_t stride, bool log,
                          const Access& access) {
  __m256 max = set1(-__builtin_inff()), sum = _mm256_setzero_ps();
  for (size_t i = 0; i < n; ++i) max = _mm256_max_ps(access.load(x + i * stride), max);
  for (size_t i = 0; i < n; ++i) {
    const __m256 e = exp_f32x8(_mm256_sub_ps(access.load(x + i * stride), max));
    if (!log) access.store(y + i * stride, e);
    sum = _mm256_add_ps(sum, e);
  }
  if (log) {
    const __m256 log_sum = log_of(sum);
    for (size_t i = 0; i < n; ++i) {
      const __m256 v = _mm256_sub_ps(access.load(x + i * stride), max);
      access.store(y + i * stride, _mm256_sub_ps(v, log_sum));
    }
  } else {
    const __m256 inverse = _mm256_div_ps(set1(1.0f), sum);
    for (size_t i = 0; i < n; ++i)
      access.store(y + i * stride, _mm256_mul_ps(access.load(y + i * stride), inverse));
  }
}

// Sixteen columns through a tile on the stack: each cache line is read and written once, however
// the rows fall on the cache's sets.
constexpr size_t kTileRows = 256;

inline void sixteen_columns(const float* x, float* y, size_t n, size_t stride, bool log) {
  alignas(64) float tile[16 * kTileRows];
  for (size_t i = 0; i < n; ++i) {
    _mm256_store_ps(tile + 16 * i, _mm256_loadu_ps(x + i * stride));
    _mm256_store_ps(tile + 16 * i + 8, _mm256_loadu_ps(x + i * stride + 8));
  }
  eight_columns(tile, tile, n, 16, log, Whole{});
  eight_columns(tile + 8, tile + 8, n, 16, log, Whole{});
  for (size_t i = 0; i < n; ++i) {
    _mm256_storeu_ps(y + i * stride, _mm256_load_ps(tile + 16 * i));
    _mm256_storeu_ps(y + i * stride + 8, _mm256_load_ps(tile + 16 * i + 8));
  }
}

void columns(const float* x, float* y, size_t n, size_t stride, size_t width, bool log) {
  size_t j = 0;
  if (n <= kTileRows)
    for (; j + 16 <= width; j += 16) sixteen_columns(x + j, y + j, n, stride, log);
  for (; j + 8 <= width; j += 8) eight_columns(x + j, y + j, n, stride, log, Whole{});
  if (j < width) eight_columns(x + j, y + j, n, stride, log, Masked{width - j});
}

}  // namespace

SoftmaxKernels softmax_f32_avx2() { return {row, columns}; }

}  // namespace lepton
