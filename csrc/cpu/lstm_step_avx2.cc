// A panel of gemm_s8_3x32c4_avx2 whose four registers of columns are the gates of eight units, so
// that sums become states where they are. The limit is the two pipes that multiply, a cycle for a
// register of weights and a row; up to three rows share a read of the panel.
#include <immintrin.h>

#include "cpu/gemm_s8_pairs_avx2.h"
#include "cpu/lstm_cell_avx2.h"
#include "ops/lstm_step.h"

namespace lepton {
namespace {

constexpr size_t kGates = 4, kPanelSums = kGates * kNv * sizeof(int32_t);
constexpr size_t kParts = 4;  // of a cell

// Gates of units [unit, unit + 8) of a row, and their cells.
__attribute__((always_inline)) inline LstmCell cell_of(const LstmStepParams& params, size_t row,
                                                       size_t unit, const __m256i (&sum)[kGates]) {
  const size_t n = params.hidden;
  const float* const projected = params.projected + row * kGates * n + unit;
  const __m256 row_scale_f32x8 = set1(params.row_scale[row]);
  __m256 gate_f32x8[kGates];
  for_each_index<kGates>([&](auto g) __attribute__((always_inline)) {
    const __m256 scale_f32x8 = _mm256_loadu_ps(params.scale + g * n + unit);
    const __m256 y_f32x8 =
        _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum[g]), scale_f32x8), row_scale_f32x8);
    gate_f32x8[g] = _mm256_add_ps(y_f32x8, _mm256_loadu_ps(projected + g * n));
  });
  const __m256 c = _mm256_loadu_ps(params.c + row * n + unit);
  return {gate_f32x8[0], gate_f32x8[1], gate_f32x8[2], gate_f32x8[3], {c, c}, c, c};
}

inline void store(const LstmStepParams& params, size_t row, size_t unit, const LstmState& state) {
  _mm256_storeu_ps(params.c + row * params.hidden + unit, state.c_f32x8);
  _mm256_storeu_ps(params.h + row * params.hidden + unit, state.h_f32x8);
}

__attribute__((always_inline)) inline void finish(const LstmStepParams& params, size_t row,
                                                  size_t unit, const __m256i (&sum)[kGates]) {
  LstmCell cell = cell_of(params, row, unit, sum);
  for_each_index<kParts>([&](auto part) __attribute__((always_inline)) { cell.run<part>(); });
  store(params, row, unit, cell.state);
}

// The sums of rows [row, row + kRows) and a panel. between(Index<i>()) is called after each of
// kParts parts of k.
template <size_t kRows, typename Between>
__attribute__((always_inline)) inline void multiply(const LstmStepParams& params, size_t row,
                                                    size_t panel, __m256i (&sum)[kRows][kGates],
                                                    const Between& between) {
  const auto* const packed =
      reinterpret_cast<const int8_t*>(params.packed + panel * params.panel_stride);
  __m256i ones_i16x16 = _mm256_set1_epi16(1);
  pin(ones_i16x16);
  for_each_index<kRows>([&](auto i) __attribute__((always_inline)) {
    const __m256i point_i32x8 = _mm256_set1_epi32(-params.zero_points[row + i]);
    for_each_index<kGates>([&](auto g) __attribute__((always_inline)) {
      sum[i][g] = _mm256_mullo_epi32(point_i32x8, load(packed + g * kNv * sizeof(int32_t)));
    });
  });
  const int8_t* rhs = packed + kPanelSums;
  const uint8_t* lhs = params.rows + row * params.row_stride;
  const size_t stride = params.row_stride;
  const uint8_t* const end = lhs + params.k;
  const size_t length = params.k / (kParts * 2 * kKr) * 2 * kKr;
  constexpr size_t kStep = kGates * kNv * kKr;
  for_each_index<kParts>([&](auto part) __attribute__((always_inline)) {
    const uint8_t* const stop = part + 1 < kParts ? lhs + length : end - kKr;
    const auto quads = [&](auto count) __attribute__((always_inline)) {
      for_each_index<count>([&](auto q) __attribute__((always_inline)) {
        step(lhs + q * kKr, stride, rhs + q * kStep, ones_i16x16, sum);
      });
      lhs += count * kKr, rhs += count * kStep;
    };
    while (lhs + 2 * kKr < stop) quads(Index<4>());
    while (lhs < stop) quads(Index<2>());
    between(part);
  });
  if (lhs < end) step(lhs, stride, rhs, ones_i16x16, sum);
}

template <size_t kRows>
inline void rows(const LstmStepParams& params, size_t row, size_t panel) {
  __m256i sum[kRows][kGates];
  multiply(params, row, panel, sum, [](auto) {});
  for_each_index<kRows>(
      [&](auto i) __attribute__((always_inline)) { finish(params, row + i, panel * kNv, sum[i]); });
}

// The cell of a panel runs in parts between those of the next panel's products, whose pipes are
// then never idle while the cell waits for its divisions.
void single_row(const LstmStepParams& params) {
  __m256i sum[1][kGates];
  multiply(params, 0, params.first, sum, [](auto) {});
  for (size_t panel = params.first + 1; panel < params.last; ++panel) {
    LstmCell cell = cell_of(params, 0, (panel - 1) * kNv, sum[0]);
    multiply(params, 0, panel, sum,
             [&](auto part) __attribute__((always_inline)) { cell.run<part>(); });
    store(params, 0, (panel - 1) * kNv, cell.state);
  }
  finish(params, 0, (params.last - 1) * kNv, sum[0]);
}

}  // namespace

void lstm_step_u8_3x32c4_avx2(const LstmStepParams& shared) {
  const LstmStepParams params = shared;  // stores of floats may alias what is not local
  if (params.m == 1 && params.first < params.last) return single_row(params);
  for (size_t panel = params.first; panel < params.last; ++panel) {
    size_t row = 0;
    for (; row + 3 <= params.m; row += 3) rows<3>(params, row, panel);
    if (params.m - row == 2) rows<2>(params, row, panel);
    if (params.m - row == 1) rows<1>(params, row, panel);
  }
}

}  // namespace lepton
