// Rows: four independent accumulators of eight lanes hide the latency of addition, so a row in L1
// is bound by its loads. Columns: 32 neighbouring columns (two cache lines) at a time down a block
// of rows, accumulators in registers. Blocks as in the contract; max and min note NaN apart, since
// maxps forgets it.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/math_avx2.h"
#include "ops/reduce.h"

namespace lepton {
namespace {

constexpr size_t kRowBlock = 512, kColumnBlock = 128;

struct Sum {
  static __m256 map(__m256 x, __m256) { return x; }
};
struct SumAbs {
  static __m256 map(__m256 x, __m256) { return abs_f32x8(x); }
};
struct SumSquare {
  static __m256 map(__m256 x, __m256) { return _mm256_mul_ps(x, x); }
};
struct SumExp {
  static __m256 map(__m256 x, __m256 shift) { return exp_f32x8(_mm256_sub_ps(x, shift)); }
};

// Accumulators have names of their own: indexed ones would live in memory at -O2.
template <typename F>
inline float sum_block(const float* x, size_t n, __m256 shift) {
  __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
  const auto map = [&](size_t i) { return F::map(_mm256_loadu_ps(x + i), shift); };
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    a = _mm256_add_ps(a, map(i));
    b = _mm256_add_ps(b, map(i + 8));
    c = _mm256_add_ps(c, map(i + 16));
    d = _mm256_add_ps(d, map(i + 24));
  }
  for (; i + 8 <= n; i += 8) a = _mm256_add_ps(a, map(i));
  if (i < n) {
    const __m256 lanes = _mm256_castsi256_ps(tail_mask(n - i));
    b = _mm256_add_ps(b, and_(lanes, F::map(load_tail(x + i, n - i), shift)));
  }
  return sum_lanes(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
}

template <typename F>
double sum_row(const float* x, size_t n, float shift) {
  double total = 0;
  for (size_t i = 0; i < n; i += kRowBlock)
    total += static_cast<double>(
        sum_block<F>(x + i, n - i < kRowBlock ? n - i : kRowBlock, set1(shift)));
  return total;
}

inline void add_to(double* acc, __m256 v) {
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
  const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
  _mm256_storeu_pd(acc, _mm256_add_pd(_mm256_loadu_pd(acc), low));
  _mm256_storeu_pd(acc + 4, _mm256_add_pd(_mm256_loadu_pd(acc + 4), high));
}

// 32 columns, or 8.
template <typename F>
inline void sum_32_columns(const float* x, size_t rows, size_t stride, const float* shift,
                           double* acc) {
  const auto shift_at = [&](size_t j) {
    return shift != nullptr ? _mm256_loadu_ps(shift + j) : _mm256_setzero_ps();
  };
  const __m256 sa = shift_at(0), sb = shift_at(8), sc = shift_at(16), sd = shift_at(24);
  __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
  for (size_t i = 0; i < rows; ++i, x += stride) {
    a = _mm256_add_ps(a, F::map(_mm256_loadu_ps(x), sa));
    b = _mm256_add_ps(b, F::map(_mm256_loadu_ps(x + 8), sb));
    c = _mm256_add_ps(c, F::map(_mm256_loadu_ps(x + 16), sc));
    d = _mm256_add_ps(d, F::map(_mm256_loadu_ps(x + 24), sd));
  }
  add_to(acc, a);
  add_to(acc + 8, b);
  add_to(acc + 16, c);
  add_to(acc + 24, d);
}
template <typename F>
inline void sum_8_columns(const float* x, size_t rows, size_t stride, const float* shift,
                          double* acc) {
  const __m256 s = shift != nullptr ? _mm256_loadu_ps(shift) : _mm256_setzero_ps();
  __m256 v = _mm256_setzero_ps();
  for (size_t i = 0; i < rows; ++i)
    v = _mm256_add_ps(v, F::map(_mm256_loadu_ps(x + i * stride), s));
  add_to(acc, v);
}

template <typename F>
void sum_columns(const float* x, size_t rows, size_t stride, size_t width, const float* shift,
                 double* acc) {
  for (size_t first = 0; first < rows; first += kColumnBlock, x += kColumnBlock * stride) {
    const size_t n = rows - first < kColumnBlock ? rows - first : kColumnBlock;
    size_t j = 0;
    const auto shift_at = [&](size_t at) { return shift != nullptr ? shift + at : nullptr; };
    for (; j + 32 <= width; j += 32) sum_32_columns<F>(x + j, n, stride, shift_at(j), acc + j);
    for (; j + 8 <= width; j += 8) sum_8_columns<F>(x + j, n, stride, shift_at(j), acc + j);
    if (j == width) continue;
    const size_t rest = width - j;
    const __m256 s = shift != nullptr ? load_tail(shift + j, rest) : _mm256_setzero_ps();
    __m256 v = _mm256_setzero_ps();
    for (size_t i = 0; i < n; ++i)
      v = _mm256_add_ps(v, F::map(load_tail(x + i * stride + j, rest), s));
    float sums[8];
    _mm256_storeu_ps(sums, v);
    for (size_t k = 0; k < rest; ++k) acc[j + k] += static_cast<double>(sums[k]);
  }
}

struct Max {
  static float identity() { return -__builtin_inff(); }
  static __m256 combine(__m256 a, __m256 x) { return _mm256_max_ps(a, x); }
  static double combine(double a, double x) { return x > a || x != x ? x : a; }
};
struct Min {
  static float identity() { return __builtin_inff(); }
  static __m256 combine(__m256 a, __m256 x) { return _mm256_min_ps(a, x); }
  static double combine(double a, double x) { return x < a || x != x ? x : a; }
};

// Extremes of lanes, and which lanes have seen a NaN.
template <typename F>
struct Extreme {
  __m256 value = set1(F::identity());
  __m256 nan = _mm256_setzero_ps();
  void take(__m256 x) {
    value = F::combine(value, x);
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  void take(const Extreme& e) {
    value = F::combine(value, e.value);
    nan = _mm256_or_ps(nan, e.nan);
  }
  __m256 result() const { return select(nan, set1(__builtin_nanf("")), value); }
};

template <typename F>
double fold_row(const float* x, size_t n, float) {
  Extreme<F> a, b, c, d;
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    a.take(_mm256_loadu_ps(x + i));
    b.take(_mm256_loadu_ps(x + i + 8));
    c.take(_mm256_loadu_ps(x + i + 16));
    d.take(_mm256_loadu_ps(x + i + 24));
  }
  for (; i + 8 <= n; i += 8) a.take(_mm256_loadu_ps(x + i));
  if (i < n) {
    const __m256 lanes = _mm256_castsi256_ps(tail_mask(n - i));
    b.take(select(lanes, load_tail(x + i, n - i), set1(F::identity())));
  }
  a.take(b);
  c.take(d);
  a.take(c);
  float lanes[8];
  _mm256_storeu_ps(lanes, a.result());
  double total = static_cast<double>(F::identity());
  for (float lane : lanes) total = F::combine(total, static_cast<double>(lane));
  return total;
}

template <typename F>
void fold_columns(const float* x, size_t rows, size_t stride, size_t width, const float*,
                  double* acc) {
  for (size_t j = 0; j < width; j += 8) {
    const size_t lanes = width - j < 8 ? width - j : 8;
    Extreme<F> e;
    if (lanes == 8) {
      for (size_t i = 0; i < rows; ++i) e.take(_mm256_loadu_ps(x + i * stride + j));
    } else {
      for (size_t i = 0; i < rows; ++i) e.take(load_tail(x + i * stride + j, lanes));
    }
    float values[8];
    _mm256_storeu_ps(values, e.result());
    for (size_t k = 0; k < lanes; ++k)
      acc[j + k] = F::combine(acc[j + k], static_cast<double>(values[k]));
  }
}

const ReduceKernel kList[] = {
    {ReduceOp::kSum, sum_row<Sum>, sum_columns<Sum>},
    {ReduceOp::kSumAbs, sum_row<SumAbs>, sum_columns<SumAbs>},
    {ReduceOp::kSumSquare, sum_row<SumSquare>, sum_columns<SumSquare>},
    {ReduceOp::kSumExp, sum_row<SumExp>, sum_columns<SumExp>},
    {ReduceOp::kMax, fold_row<Max>, fold_columns<Max>},
    {ReduceOp::kMin, fold_row<Min>, fold_columns<Min>},
};

}  // namespace

ReduceKernels reduce_f32_avx2() { return {kList, sizeof kList / sizeof kList[0]}; }

}  // namespace lepton
