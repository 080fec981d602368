// Depthwise convolution, 8-bit integers, AVX2.
//
// Sixteen channels at a time. Two taps are widened to int16 and interleaved, so that one vpmaddwd
// multiplies both with their weights and adds the pair exactly; two pixels share the weight loads.
// The in-lane unpack leaves channels in the order {0-3, 8-11}, {4-7, 12-15}: weights are packed
// that way, and two lane permutes restore the order once per pixel. Limit: two shuffles per tap
// (widen, interleave) on two ports.
#include <immintrin.h>

#include "ops/depthwise.h"

namespace lepton {
namespace {

template <bool kSigned>
inline __m256i widen(__m128i x_i8x16) {
  return kSigned ? _mm256_cvtepi8_epi16(x_i8x16) : _mm256_cvtepu8_epi16(x_i8x16);
}

struct Whole {
  __m128i load(const uint8_t* p) const {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
};
// The first `count` < 16 bytes; nothing beyond them is read.
struct Partial {
  size_t count;
  __m128i load(const uint8_t* p) const {
    alignas(16) uint8_t buffer[16] = {};
    for (size_t i = 0; i < count; ++i) buffer[i] = p[i];
    return _mm_load_si128(reinterpret_cast<const __m128i*>(buffer));
  }
};

// Two taps of kPixels pixels, x0 and x1 pointing at their channels, w at their packed weights.
template <bool kSigned, int kPixels, typename Lanes>
inline void add_pair(const Lanes& lanes, const uint8_t* x0, ptrdiff_t step0, const uint8_t* x1,
                     ptrdiff_t step1, const __m256i* w, __m256i (&lo_i32x8)[kPixels],
                     __m256i (&hi_i32x8)[kPixels]) {
  const __m256i w_lo = _mm256_loadu_si256(w), w_hi = _mm256_loadu_si256(w + 1);
#pragma GCC unroll 8
  for (int j = 0; j < kPixels; ++j) {
    const __m256i a_i16x16 = widen<kSigned>(lanes.load(x0 + j * step0));
    const __m256i b_i16x16 = widen<kSigned>(lanes.load(x1 + j * step1));
    const __m256i ab_lo = _mm256_unpacklo_epi16(a_i16x16, b_i16x16);
    const __m256i ab_hi = _mm256_unpackhi_epi16(a_i16x16, b_i16x16);
    lo_i32x8[j] = _mm256_add_epi32(lo_i32x8[j], _mm256_madd_epi16(ab_lo, w_lo));
    hi_i32x8[j] = _mm256_add_epi32(hi_i32x8[j], _mm256_madd_epi16(ab_hi, w_hi));
  }
}

// The kPixels pixels that input points at, pixel i being the first; 16 channels from channel c on.
// kTaps is the number of taps when it is known, else 0.
template <bool kSigned, int kPixels, size_t kTaps, typename Lanes>
inline void tile(const DepthwiseS8Params& p, size_t i, size_t c, const Lanes& lanes) {
  const size_t taps = kTaps != 0 ? kTaps : p.taps;
  const uint8_t* const* x = p.input;
  const ptrdiff_t* step = p.input_step;
  const __m256i* w = reinterpret_cast<const __m256i*>(p.weights + c * ((taps + 1) / 2) * 2);
  __m256i lo_i32x8[kPixels], hi_i32x8[kPixels];
#pragma GCC unroll 8
  for (int j = 0; j < kPixels; ++j) lo_i32x8[j] = hi_i32x8[j] = _mm256_setzero_si256();
  size_t t = 0;
#pragma GCC unroll 4
  for (; t + 2 <= taps; t += 2, w += 2)
    add_pair<kSigned>(lanes, x[t] + c, step[t], x[t + 1] + c, step[t + 1], w, lo_i32x8, hi_i32x8);
  if (t < taps)
    add_pair<kSigned>(lanes, x[t] + c, step[t], x[t] + c, step[t], w, lo_i32x8, hi_i32x8);
  const __m256i* bias = reinterpret_cast<const __m256i*>(p.bias + c);
#pragma GCC unroll 8
  for (int j = 0; j < kPixels; ++j) {
    const __m256i first = _mm256_permute2x128_si256(lo_i32x8[j], hi_i32x8[j], 0x20);
    const __m256i second = _mm256_permute2x128_si256(lo_i32x8[j], hi_i32x8[j], 0x31);
    __m256i* acc = reinterpret_cast<__m256i*>(p.acc + (i + j) * p.acc_stride + c);
    _mm256_storeu_si256(acc, _mm256_add_epi32(first, _mm256_loadu_si256(bias)));
    _mm256_storeu_si256(acc + 1, _mm256_add_epi32(second, _mm256_loadu_si256(bias + 1)));
  }
}

template <bool kSigned, int kPixels, size_t kTaps>
inline void all_channels(const DepthwiseS8Params& p, size_t i) {
  size_t c = 0;
  for (; c + kDepthwiseBlock <= p.channels; c += kDepthwiseBlock)
    tile<kSigned, kPixels, kTaps>(p, i, c, Whole{});
  if (c < p.channels) tile<kSigned, kPixels, kTaps>(p, i, c, Partial{p.channels - c});
  for (size_t t = 0; t < p.taps; ++t) p.input[t] += kPixels * p.input_step[t];
}

template <bool kSigned, size_t kTaps>
inline void run(const DepthwiseS8Params& p) {
  size_t i = 0;
  for (; i + 2 <= p.pixels; i += 2) all_channels<kSigned, 2, kTaps>(p, i);
  if (i < p.pixels) all_channels<kSigned, 1, kTaps>(p, i);
}

}  // namespace

void depthwise_s8_avx2(const DepthwiseS8Params& p) {
  if (p.taps == 9)
    p.input_signed ? run<true, 9>(p) : run<false, 9>(p);
  else
    p.input_signed ? run<true, 0>(p) : run<false, 0>(p);
}

}  // namespace lepton
