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

// Thinner than a tile: element by element, columns [first, cols) of rows [first_row, rows).
template <typename T>
void transpose_thin(const TransposeParams& p, size_t first_row, size_t first_col) {
  const char* src = static_cast<const char*>(p.src);
  char* dst = static_cast<char*>(p.dst);
  for (size_t j = first_col; j < p.cols; ++j)
    for (size_t i = first_row; i < p.rows; ++i)
      __builtin_memcpy(dst + static_cast<ptrdiff_t>(j) * p.dst_stride + i * sizeof(T),
                       src + static_cast<ptrdiff_t>(i) * p.src_stride + j * sizeof(T), sizeof(T));
}

// Byte shuffles between n planes and n interleaved vectors of 16 bytes: entry [a][b] is the part of
// vector a of the one side that vector b of the other gives.
template <size_t kSize, size_t kCount>
void make_masks(bool interleave, __m128i* masks) {
  alignas(16) unsigned char bytes[kCount * kCount * 16];
  for (size_t a = 0; a < kCount; ++a) {
    for (size_t to = 0; to < 16; ++to) {
      // Position of this byte among the interleaved ones, and as (plane, byte).
      const size_t plane_byte = to / kSize * kSize * kCount + a * kSize + to % kSize;
      const size_t element = (a * 16 + to) / kSize;
      const size_t from = interleave ? element % kCount : plane_byte / 16;
      const size_t at = interleave ? element / kCount * kSize + to % kSize : plane_byte % 16;
      for (size_t b = 0; b < kCount; ++b)
        bytes[(a * kCount + b) * 16 + to] = static_cast<unsigned char>(b == from ? at : 0x80);
    }
  }
  for (size_t i = 0; i < kCount * kCount; ++i)
    masks[i] = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes + i * 16));
}

template <size_t kCount>
__m128i shuffle_from(const __m128i* vectors, const __m128i* masks) {
  __m128i sum = _mm_shuffle_epi8(vectors[0], masks[0]);
  LEPTON_UNROLL
  for (size_t b = 1; b < kCount; ++b)
    sum = _mm_or_si128(sum, _mm_shuffle_epi8(vectors[b], masks[b]));
  return sum;
}

// kCount rows become kCount interleaved channels (images: planes to pixels), or the reverse. The
// interleaved side has no gaps between its rows.
template <typename T, size_t kCount, bool kInterleave>
void transpose_channels(const TransposeParams& p) {
  constexpr size_t per_vector = 16 / sizeof(T);
  const size_t length = kInterleave ? p.cols : p.rows;
  const char* src = static_cast<const char*>(p.src);
  char* dst = static_cast<char*>(p.dst);
  const ptrdiff_t src_step = kInterleave ? p.src_stride : 16;
  const ptrdiff_t dst_step = kInterleave ? 16 : p.dst_stride;
  __m128i masks[kCount * kCount];
  make_masks<sizeof(T), kCount>(kInterleave, masks);
  size_t done = 0;
  for (; done + per_vector <= length; done += per_vector) {
    const char* from = src + done * sizeof(T) * (kInterleave ? 1 : kCount);
    char* to = dst + done * sizeof(T) * (kInterleave ? kCount : 1);
    __m128i vectors[kCount];
    LEPTON_UNROLL
    for (size_t k = 0; k < kCount; ++k)
      vectors[k] = _mm_loadu_si128(
          reinterpret_cast<const __m128i*>(from + static_cast<ptrdiff_t>(k) * src_step));
    LEPTON_UNROLL
    for (size_t k = 0; k < kCount; ++k)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + static_cast<ptrdiff_t>(k) * dst_step),
                       shuffle_from<kCount>(vectors, masks + k * kCount));
  }
  transpose_thin<T>(p, kInterleave ? 0 : done, kInterleave ? done : 0);
}

template <typename T>
void transpose_thin(const TransposeParams& p) {
  constexpr size_t kLong = 512 / sizeof(T);  // pays for making the masks
  const ptrdiff_t size = static_cast<ptrdiff_t>(sizeof(T));
  if (p.cols >= kLong && p.dst_stride == static_cast<ptrdiff_t>(p.rows) * size) {
    if (p.rows == 2) return transpose_channels<T, 2, true>(p);
    if (p.rows == 3) return transpose_channels<T, 3, true>(p);
    if (p.rows == 4) return transpose_channels<T, 4, true>(p);
  }
  if (p.rows >= kLong && p.src_stride == static_cast<ptrdiff_t>(p.cols) * size) {
    if (p.cols == 2) return transpose_channels<T, 2, false>(p);
    if (p.cols == 3) return transpose_channels<T, 3, false>(p);
    if (p.cols == 4) return transpose_channels<T, 4, false>(p);
  }
  transpose_thin<T>(p, 0, 0);
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
