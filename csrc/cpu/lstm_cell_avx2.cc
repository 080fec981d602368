// Eight units at a time, from gates to state in registers: one read of each gate and nothing stored
// in between. Bound by its arithmetic.
#include "cpu/lstm_cell_avx2.h"

#include "ops/lstm_cell.h"

namespace lepton {

void lstm_cell_f32_avx2(size_t n, const float* gates, float* c, float* h) {
  const auto gate = [&](size_t i, size_t j) { return _mm256_loadu_ps(gates + i * n + j); };
  size_t j = 0;
  for (; j + 8 <= n; j += 8) {
    const LstmState next =
        lstm_cell(gate(0, j), gate(1, j), gate(2, j), gate(3, j), _mm256_loadu_ps(c + j));
    _mm256_storeu_ps(c + j, next.c_f32x8);
    _mm256_storeu_ps(h + j, next.h_f32x8);
  }
  const size_t rest = n - j;
  if (rest == 0) return;
  const auto tail = [&](size_t i) { return load_tail(gates + i * n + j, rest); };
  const LstmState next = lstm_cell(tail(0), tail(1), tail(2), tail(3), load_tail(c + j, rest));
  store_tail(c + j, next.c_f32x8, rest);
  store_tail(h + j, next.h_f32x8, rest);
}

}  // namespace lepton
