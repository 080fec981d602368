// The definitions: one loop per block, blocks added in float64.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "ops/reduce.h"

namespace lepton {
namespace {

constexpr size_t kRowBlock = 512, kColumnBlock = 128;

struct Sum {
  static float map(float x, float) { return x; }
};
struct SumAbs {
  static float map(float x, float) { return std::fabs(x); }
};
struct SumSquare {
  static float map(float x, float) { return x * x; }
};
struct SumExp {
  static float map(float x, float shift) { return std::exp(x - shift); }
};

template <typename F>
double sum_row(const float* x, size_t n, float shift) {
  double total = 0;
  for (size_t first = 0; first < n; first += kRowBlock) {
    const size_t last = n - first < kRowBlock ? n : first + kRowBlock;
    float partial[4] = {};  // four chains hide the latency of addition
    size_t i = first;
    for (; i + 4 <= last; i += 4)
      for (size_t j = 0; j < 4; ++j) partial[j] += F::map(x[i + j], shift);
    for (; i < last; ++i) partial[0] += F::map(x[i], shift);
    total += (partial[0] + partial[1]) + (partial[2] + partial[3]);
  }
  return total;
}

template <typename F>
void sum_columns(const float* x, size_t rows, size_t stride, size_t width, const float* shift,
                 double* acc) {
  float partial[kReduceWidth];
  for (size_t first = 0; first < rows; first += kColumnBlock) {
    const size_t last = rows - first < kColumnBlock ? rows : first + kColumnBlock;
    for (size_t j = 0; j < width; ++j) partial[j] = 0;
    for (size_t i = first; i < last; ++i)
      for (size_t j = 0; j < width; ++j)
        partial[j] += F::map(x[i * stride + j], shift != nullptr ? shift[j] : 0.0f);
    for (size_t j = 0; j < width; ++j) acc[j] += partial[j];
  }
}

struct Max {
  static constexpr double kIdentity = -std::numeric_limits<double>::infinity();
  static double combine(double a, double x) { return x > a || x != x ? x : a; }
};
struct Min {
  static constexpr double kIdentity = std::numeric_limits<double>::infinity();
  static double combine(double a, double x) { return x < a || x != x ? x : a; }
};
struct Prod {
  static constexpr double kIdentity = 1;
  static double combine(double a, double x) { return a * x; }
};

template <typename F>
double fold_row(const float* x, size_t n, float) {
  double a = F::kIdentity;
  for (size_t i = 0; i < n; ++i) a = F::combine(a, x[i]);
  return a;
}

template <typename F>
void fold_columns(const float* x, size_t rows, size_t stride, size_t width, const float*,
                  double* acc) {
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < width; ++j) acc[j] = F::combine(acc[j], x[i * stride + j]);
}

const ReduceKernel kList[] = {
    {ReduceOp::kSum, sum_row<Sum>, sum_columns<Sum>},
    {ReduceOp::kSumAbs, sum_row<SumAbs>, sum_columns<SumAbs>},
    {ReduceOp::kSumSquare, sum_row<SumSquare>, sum_columns<SumSquare>},
    {ReduceOp::kSumExp, sum_row<SumExp>, sum_columns<SumExp>},
    {ReduceOp::kMax, fold_row<Max>, fold_columns<Max>},
    {ReduceOp::kMin, fold_row<Min>, fold_columns<Min>},
    {ReduceOp::kProd, fold_row<Prod>, fold_columns<Prod>},
};

}  // namespace

ReduceKernels reduce_f32_scalar() { return {kList, sizeof kList / sizeof kList[0]}; }

}  // namespace lepton
