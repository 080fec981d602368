// Sixteen units at a time, from gates to state in registers. Bound by its three divisions, sixteen
// cycles each.
#include "cpu/lstm_cell_avx512.h"

#include "ops/lstm_cell.h"

namespace lepton {

void lstm_cell_f32_avx512(size_t n, const float* gates, float* c, float* h) {
  for (size_t j = 0; j < n; j += 16) {
    const __mmask16 lanes = first_lanes(n - j);
    const auto gate = [&](size_t i) { return _mm512_maskz_loadu_ps(lanes, gates + i * n + j); };
    const LstmState next =
        lstm_cell(gate(0), gate(1), gate(2), gate(3), _mm512_maskz_loadu_ps(lanes, c + j));
    _mm512_mask_storeu_ps(c + j, lanes, next.c_f32x16);
    _mm512_mask_storeu_ps(h + j, lanes, next.h_f32x16);
  }
}

}  // namespace lepton
