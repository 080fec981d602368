// 2-D transpose in register tiles of 32/s rows by 16/s columns (16 rows for s = 1). The upper half
// of the tile's rows sits in the upper 128-bit lanes, so interleaving register r with register r +
// n/2 log2(n) times (a perfect shuffle of the lane's bytes) leaves whole columns, with no shuffle
// that crosses lanes for s >= 2. Columns advance in the outer loop, so that a tile's writes
// continue where the tile before it stopped. Limited by shuffles in L1, by strided reads beyond. A
// ragged edge is covered by a last tile that overlaps its neighbour; only a matrix thinner than a
// tile moves element by element.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/transpose.h"

// The register arrays below live in registers only when their loops are unrolled, which GCC leaves
// undone at -O2.
#if defined(__GNUC__) && !defined(__clang__)
#define LEPTON_UNROLL _Pragma("GCC unroll 8")
#else
#define LEPTON_UNROLL
#endif

namespace lepton {
namespace {

template <size_t kSize>
__m256i interleave_lo(__m256i a, __m256i b) {
  if constexpr (kSize == 1)
    return _mm256_unpacklo_epi8(a, b);
  else if constexpr (kSize == 2)
    return _mm256_unpacklo_epi16(a, b);
  else if constexpr (kSize == 4)
    return _mm256_unpacklo_epi32(a, b);
  else
    return _mm256_unpacklo_epi64(a, b);
}

template <size_t kSize>
__m256i interleave_hi(__m256i a, __m256i b) {
  if constexpr (kSize == 1)
    return _mm256_unpackhi_epi8(a, b);
  else if constexpr (kSize == 2)
    return _mm256_unpackhi_epi16(a, b);
  else if constexpr (kSize == 4)
    return _mm256_unpackhi_epi32(a, b);
  else
    return _mm256_unpackhi_epi64(a, b);
}

template <size_t kSize>
struct Tile {
  static constexpr size_t kCols = 16 / kSize;
  static constexpr size_t kRegs = kSize == 1 ? 8 : kCols;  // rows per 128-bit lane
  static constexpr size_t kRows = 2 * kRegs;
};

// Columns of one tile: register k holds column k (s >= 2) or columns 2k and 2k + 1 (s = 1).
template <size_t kSize>
void shuffle(__m256i* r) {
  constexpr size_t n = Tile<kSize>::kRegs;
  LEPTON_UNROLL
  for (size_t step = 1; step < n; step *= 2) {
    __m256i t[n];
    LEPTON_UNROLL
    for (size_t k = 0; k < n / 2; ++k) {
      t[2 * k] = interleave_lo<kSize>(r[k], r[k + n / 2]);
      t[2 * k + 1] = interleave_hi<kSize>(r[k], r[k + n / 2]);
    }
    LEPTON_UNROLL
    for (size_t k = 0; k < n; ++k) r[k] = t[k];
  }
}

template <size_t kSize>
void transpose_tile(const char* src, ptrdiff_t src_stride, char* dst, ptrdiff_t dst_stride) {
  constexpr size_t n = Tile<kSize>::kRegs;
  __m256i r[n];
  LEPTON_UNROLL
  for (size_t k = 0; k < n; ++k) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(k);
    const ptrdiff_t upper = static_cast<ptrdiff_t>(k + n);
    r[k] = _mm256_inserti128_si256(
        _mm256_castsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + row * src_stride))),
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + upper * src_stride)), 1);
  }
  shuffle<kSize>(r);
  LEPTON_UNROLL
  for (size_t k = 0; k < n; ++k) {
    if constexpr (kSize == 1) {
      const __m256i columns = _mm256_permute4x64_epi64(r[k], 0xd8);
      const ptrdiff_t column = static_cast<ptrdiff_t>(2 * k);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + column * dst_stride),
                       _mm256_castsi256_si128(columns));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + (column + 1) * dst_stride),
                       _mm256_extracti128_si256(columns, 1));
    } else {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + static_cast<ptrdiff_t>(k) * dst_stride),
                          r[k]);
    }
  }
}

// Thinner than a tile. The count of the short side is a constant where it matters (images have one
// to four channels), so that its loop unrolls; 0 stands for any.
template <typename T, size_t kRows, size_t kCols>
void transpose_thin(const TransposeParams& p) {
  const size_t rows = kRows > 0 ? kRows : p.rows;
  const size_t cols = kCols > 0 ? kCols : p.cols;
  const char* src = static_cast<const char*>(p.src);
  char* dst = static_cast<char*>(p.dst);
  const auto move = [&](size_t i, size_t j) {
    __builtin_memcpy(dst + static_cast<ptrdiff_t>(j) * p.dst_stride + i * sizeof(T),
                     src + static_cast<ptrdiff_t>(i) * p.src_stride + j * sizeof(T), sizeof(T));
  };
  if (kCols > 0) {
    for (size_t i = 0; i < rows; ++i) {
      LEPTON_UNROLL
      for (size_t j = 0; j < cols; ++j) move(i, j);
    }
  } else {
    for (size_t j = 0; j < cols; ++j) {
      LEPTON_UNROLL
      for (size_t i = 0; i < rows; ++i) move(i, j);
    }
  }
}

template <typename T>
void transpose_thin(const TransposeParams& p) {
  if (p.rows == 2) return transpose_thin<T, 2, 0>(p);
  if (p.rows == 3) return transpose_thin<T, 3, 0>(p);
  if (p.rows == 4) return transpose_thin<T, 4, 0>(p);
  if (p.cols == 2) return transpose_thin<T, 0, 2>(p);
  if (p.cols == 3) return transpose_thin<T, 0, 3>(p);
  if (p.cols == 4) return transpose_thin<T, 0, 4>(p);
  return transpose_thin<T, 0, 0>(p);
}

constexpr size_t kPanelBytes = 128;

template <typename T>
void transpose(const TransposeParams& p) {
  constexpr size_t kSize = sizeof(T);
  constexpr size_t rows = Tile<kSize>::kRows;
  constexpr size_t cols = Tile<kSize>::kCols;
  if (p.rows < rows || p.cols < cols) return transpose_thin<T>(p);
  const char* src = static_cast<const char*>(p.src);
  char* dst = static_cast<char*>(p.dst);
  for (size_t panel = 0; panel < p.cols; panel += kPanelBytes / kSize) {
    const size_t panel_end =
        panel + kPanelBytes / kSize < p.cols ? panel + kPanelBytes / kSize : p.cols;
    for (size_t i0 = 0; i0 < p.rows; i0 += rows) {
      const size_t i = i0 + rows <= p.rows ? i0 : p.rows - rows;
      const char* src_row = src + static_cast<ptrdiff_t>(i) * p.src_stride;
      for (size_t j0 = panel; j0 < panel_end; j0 += cols) {
        const size_t j = j0 + cols <= p.cols ? j0 : p.cols - cols;
        transpose_tile<kSize>(src_row + j * kSize, p.src_stride,
                              dst + static_cast<ptrdiff_t>(j) * p.dst_stride + i * kSize,
                              p.dst_stride);
      }
    }
  }
}

}  // namespace

void transpose_x1_16x16_avx2(const TransposeParams& p) { transpose<uint8_t>(p); }
void transpose_x2_16x8_avx2(const TransposeParams& p) { transpose<uint16_t>(p); }
void transpose_x4_8x4_avx2(const TransposeParams& p) { transpose<uint32_t>(p); }
void transpose_x8_4x2_avx2(const TransposeParams& p) { transpose<uint64_t>(p); }

}  // namespace lepton
