// One channel after the other, in unsigned 32-bit arithmetic: the transforms of winograd_s8.h as
// their matrices say.
#include "ops/winograd_s8.h"

namespace lepton {
namespace {

// Bᵀ times a column.
inline void transform_patch(const int32_t (&d)[4], int32_t (&v)[4]) {
  v[0] = d[0] - d[2];
  v[1] = d[1] + d[2];
  v[2] = d[2] - d[1];
  v[3] = d[1] - d[3];
}

void input(const WinogradS8InputParams& p) {
  for (size_t c = 0; c < p.channels; ++c) {
    int32_t columns[4][4];
    for (size_t j = 0; j < 4; ++j) {
      int32_t d[4];
      for (size_t i = 0; i < 4; ++i) d[i] = (p.pixels[4 * i + j][c] ^ p.flip) - p.zero_point;
      transform_patch(d, columns[j]);
    }
    for (size_t i = 0; i < 4; ++i) {
      const int32_t row[4] = {columns[0][i], columns[1][i], columns[2][i], columns[3][i]};
      int32_t v[4];
      transform_patch(row, v);
      for (size_t j = 0; j < 4; ++j) p.v[(4 * i + j) * p.v_step + c] = static_cast<int16_t>(v[j]);
    }
  }
}

void output(const WinogradS8OutputParams& p) {
  for (size_t c = 0; c < p.channels; ++c) {
    const int32_t* const m = p.m + c / p.width * p.panel_step + c % p.width;
    uint32_t rows[2][4];
    for (size_t j = 0; j < 4; ++j) {
      const auto at = [&](size_t i) { return static_cast<uint32_t>(m[(4 * i + j) * p.m_step]); };
      rows[0][j] = at(0) + at(1) + at(2);
      rows[1][j] = at(1) - at(2) - at(3);
    }
    for (size_t i = 0; i < 2; ++i) {
      const uint32_t left = rows[i][0] + rows[i][1] + rows[i][2];
      const uint32_t right = rows[i][1] - rows[i][2] - rows[i][3];
      int32_t* const y = p.y + i * p.row_step + c;
      y[0] = static_cast<int32_t>(left) >> 2;
      y[p.y_step] = static_cast<int32_t>(right) >> 2;
    }
  }
}

}  // namespace

WinogradS8Kernels winograd_s8_scalar() { return {input, output}; }

}  // namespace lepton
