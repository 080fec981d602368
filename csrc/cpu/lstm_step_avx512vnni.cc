// A panel of gemm_s8_6x64c4_avx512vnni whose four registers of columns are the gates of sixteen
// units, so that sums become states where they are. A single row only streams its weights from L2,
// at 48 bytes a cycle the limit; the cell's arithmetic runs between those of the next panel. Of
// several rows up to four share a read of the panel.
#include <immintrin.h>

#include "cpu/gemm_s8_vnni512.h"
#include "cpu/lstm_cell_avx512.h"
#include "ops/lstm_step.h"

namespace lepton {
namespace {

constexpr size_t kGates = 4, kPanelSums = kGates * kNv * sizeof(int32_t);
constexpr size_t kParts = 4;  // of a cell

// Gates of units [unit, unit + 16) of a row, and their cells.
__attribute__((always_inline)) inline LstmCell cell_of(const LstmStepParams& params, size_t row,
                                                       size_t unit, const __m512i (&sum)[kGates]) {
  const size_t n = params.hidden;
  const float* const projected = params.projected + row * kGates * n + unit;
  const __m512 row_scale_f32x16 = set16(params.row_scale[row]);
  __m512 gate_f32x16[kGates];
  for_each_index<kGates>([&](auto g) __attribute__((always_inline)) {
    const __m512 scale_f32x16 = _mm512_loadu_ps(params.scale + g * n + unit);
    const __m512 y_f32x16 = mul(mul(_mm512_cvtepi32_ps(sum[g]), scale_f32x16), row_scale_f32x16);
    gate_f32x16[g] = _mm512_add_ps(y_f32x16, _mm512_loadu_ps(projected + g * n));
  });
  const __m512 c = _mm512_loadu_ps(params.c + row * n + unit);
  return {gate_f32x16[0], gate_f32x16[1], gate_f32x16[2], gate_f32x16[3], {c, c}, c, c};
}

inline void store(const LstmStepParams& params, size_t row, size_t unit, const LstmState& state) {
  _mm512_storeu_ps(params.c + row * params.hidden + unit, state.c_f32x16);
  _mm512_storeu_ps(params.h + row * params.hidden + unit, state.h_f32x16);
}

__attribute__((always_inline)) inline void finish(const LstmStepParams& params, size_t row,
                                                  size_t unit, const __m512i (&sum)[kGates]) {
  LstmCell cell = cell_of(params, row, unit, sum);
  for_each_index<kParts>([&](auto part) __attribute__((always_inline)) { cell.run<part>(); });
  store(params, row, unit, cell.state);
}

// The sums of rows [row, row + kRows) and a panel. between(Index<i>()) is called after each of
// kParts parts of k.
template <size_t kRows, typename Between>
__attribute__((always_inline)) inline void multiply(const LstmStepParams& params, size_t row,
                                                    size_t panel, __m512i (&sum)[kRows][kGates],
                                                    const Between& between) {
  const auto* const packed =
      reinterpret_cast<const int8_t*>(params.packed + panel * params.panel_stride);
  for_each_index<kRows>([&](auto i) __attribute__((always_inline)) {
    const __m512i point_i32x16 = _mm512_set1_epi32(-params.zero_points[row + i]);
    for_each_index<kGates>([&](auto g) __attribute__((always_inline)) {
      sum[i][g] =
          _mm512_mullo_epi32(point_i32x16, _mm512_load_si512(packed + g * kNv * sizeof(int32_t)));
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
    for (; lhs < stop; lhs += 2 * kKr, rhs += 2 * kStep) {
      step([&](size_t i) { return lhs + i * stride; }, rhs, sum);
      step([&](size_t i) { return lhs + kKr + i * stride; }, rhs + kStep, sum);
    }
    between(part);
  });
  if (lhs < end) step([&](size_t i) { return lhs + i * stride; }, rhs, sum);
}

template <size_t kRows>
inline void rows(const LstmStepParams& params, size_t row, size_t panel) {
  __m512i sum[kRows][kGates];
  multiply(params, row, panel, sum, [](auto) {});
  for_each_index<kRows>(
      [&](auto i) __attribute__((always_inline)) { finish(params, row + i, panel * kNv, sum[i]); });
}

// The cell of a panel runs in parts between those of the next panel's products: together in one
// place it would fill the scheduler, and weights would be asked for too late.
void single_row(const LstmStepParams& params) {
  __m512i sum[1][kGates];
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

void lstm_step_u8_4x64c4_avx512vnni(const LstmStepParams& shared) {
  const LstmStepParams params = shared;  // stores of floats may alias what is not local
  if (params.m == 1 && params.first < params.last) return single_row(params);
  for (size_t panel = params.first; panel < params.last; ++panel) {
    size_t row = 0;
    for (; row + 4 <= params.m; row += 4) rows<4>(params, row, panel);
    switch (params.m - row) {
      case 3: rows<3>(params, row, panel); break;
      case 2: rows<2>(params, row, panel); break;
      case 1: rows<1>(params, row, panel); break;
      default: break;
    }
  }
}

}  // namespace lepton
