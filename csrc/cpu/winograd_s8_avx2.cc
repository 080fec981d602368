// Sixteen channels of the input in int16, eight of the products in int32: rows of a patch are
// combined as they are loaded, then columns. Bound by loads and stores, one of either per value.
#include <immintrin.h>

#include "ops/winograd_s8.h"

namespace lepton {
namespace {

void input(const WinogradS8InputParams& params) {
  const WinogradS8InputParams p = params;  // stores to v cannot alias a copy
  const __m128i flip_u8x16 = _mm_set1_epi8(static_cast<char>(p.flip));
  const __m256i zero_i16x16 = _mm256_set1_epi16(static_cast<int16_t>(4 * p.zero_point));
  for (size_t c = 0; c < p.channels; c += 16) {
    const auto load = [&](size_t e) {
      const __m128i d_u8x16 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p.pixels[e] + c));
      return _mm256_cvtepu8_epi16(_mm_xor_si128(d_u8x16, flip_u8x16));
    };
    __m256i rows[4][4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      const __m256i d0 = load(j), d1 = load(4 + j), d2 = load(8 + j), d3 = load(12 + j);
      rows[0][j] = _mm256_sub_epi16(d0, d2);
      rows[1][j] = _mm256_add_epi16(d1, d2);
      rows[2][j] = _mm256_sub_epi16(d2, d1);
      rows[3][j] = _mm256_sub_epi16(d1, d3);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const auto store = [&](size_t j, __m256i v) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.v + (4 * i + j) * p.v_step + c), v);
      };
      const __m256i sum = _mm256_add_epi16(rows[i][1], rows[i][2]);
      store(0, _mm256_sub_epi16(rows[i][0], rows[i][2]));
      store(1, i == 1 ? _mm256_sub_epi16(sum, zero_i16x16) : sum);
      store(2, _mm256_sub_epi16(rows[i][2], rows[i][1]));
      store(3, _mm256_sub_epi16(rows[i][1], rows[i][3]));
    }
  }
}

inline void output_channels(const WinogradS8OutputParams& p, const int32_t* m, int32_t* y) {
  __m256i rows[2][4];
#pragma GCC unroll 4
  for (size_t j = 0; j < 4; ++j) {
    const auto load = [&](size_t i) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(m + (4 * i + j) * p.m_step));
    };
    const __m256i m1 = load(1), m2 = load(2);
    rows[0][j] = _mm256_add_epi32(_mm256_add_epi32(load(0), m1), m2);
    rows[1][j] = _mm256_sub_epi32(_mm256_sub_epi32(m1, m2), load(3));
  }
#pragma GCC unroll 2
  for (size_t i = 0; i < 2; ++i) {
    const __m256i left = _mm256_add_epi32(_mm256_add_epi32(rows[i][0], rows[i][1]), rows[i][2]);
    const __m256i right = _mm256_sub_epi32(_mm256_sub_epi32(rows[i][1], rows[i][2]), rows[i][3]);
    int32_t* const at = y + i * p.row_step;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm256_srai_epi32(left, 2));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + p.y_step), _mm256_srai_epi32(right, 2));
  }
}

void output(const WinogradS8OutputParams& params) {
  const WinogradS8OutputParams p = params;
  const int32_t* panel = p.m;
  for (size_t c = 0; c < p.channels; panel += p.panel_step)
    for (size_t lane = 0; lane < p.width && c < p.channels; lane += 8, c += 8)
      output_channels(p, panel + lane, p.y + c);
}

}  // namespace

WinogradS8Kernels winograd_s8_avx2() { return {input, output}; }

}  // namespace lepton
