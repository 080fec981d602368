// The table is sixteen rows of sixteen bytes, as in lookup_avx2.cc: one shuffle a row picks by the
// low half of 64 indices, half of them masked, and a tree of blends by the bits of the high half
// picks among the rows. Bound by the one port of the sixteen shuffles.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/lookup.h"

namespace lepton {
namespace {

struct Rows {
  __m512i row[16];
};

// Picks among rows [first, first + 2^level): by[b − 4] says where bit b of the index is set.
template <int level>
inline __m512i pick(const Rows& rows, int first, __m512i low, const __mmask64* by) {
  const __m512i a = pick<level - 1>(rows, first, low, by);
  const __m512i b = pick<level - 1>(rows, first + (1 << (level - 1)), low, by);
  return _mm512_mask_blend_epi8(by[level - 1], a, b);
}
template <>
inline __m512i pick<1>(const Rows& rows, int first, __m512i low, const __mmask64* by) {
  const __m512i a = _mm512_shuffle_epi8(rows.row[first], low);
  return _mm512_mask_shuffle_epi8(a, by[0], rows.row[first + 1], low);
}

inline __m512i lookup64(const Rows& rows, __m512i x) {
  const __m512i low = _mm512_and_si512(x, _mm512_set1_epi8(15));
  const __mmask64 by[4] = {_mm512_movepi8_mask(_mm512_slli_epi16(x, 3)),
                           _mm512_movepi8_mask(_mm512_slli_epi16(x, 2)),
                           _mm512_movepi8_mask(_mm512_slli_epi16(x, 1)), _mm512_movepi8_mask(x)};
  return pick<4>(rows, 0, low, by);
}

}  // namespace

void lookup_u8_avx512(const uint8_t* x, const uint8_t* table, uint8_t* y, size_t n) {
  Rows rows;
  for (int k = 0; k < 16; ++k)
    rows.row[k] =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * k)));
  size_t i = 0;
  for (; i + 64 <= n; i += 64)
    _mm512_storeu_si512(y + i, lookup64(rows, _mm512_loadu_si512(x + i)));
  if (i == n) return;
  const __mmask64 lanes = (__mmask64{1} << (n - i)) - 1;
  const __m512i rest = _mm512_maskz_loadu_epi8(lanes, x + i);
  _mm512_mask_storeu_epi8(y + i, lanes, lookup64(rows, rest));
}

}  // namespace lepton
