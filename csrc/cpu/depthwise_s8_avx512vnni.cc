// Depthwise convolution, 8-bit integers, AVX512-VNNI.
//
// Thirty-two channels of two neighbouring pixels at a time, one pixel a half of the register, in
// the lane order of kDepthwiseLane: interleaving two taps as 16-bit units, then masking the even
// bytes and shifting the odd ones down, leaves both taps of one channel in every 32-bit lane, and
// one vpdpwssd multiplies and accumulates them exactly. A lone last pixel fills both halves.
// Limit: ports 0 and 5, twelve instructions for 128 multiply-accumulates.
#include <immintrin.h>

#include "ops/depthwise.h"

namespace lepton {
namespace {

// All 32 channels of a block, and the first of them: a masked load takes a vector port.
struct Whole {
  __m256i load(const uint8_t* p) const {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  void store(uint8_t* p, __m256i v) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
};
struct Partial {
  explicit Partial(size_t count) : mask((__mmask32{1} << count) - 1) {}
  __m256i load(const uint8_t* p) const { return _mm256_maskz_loadu_epi8(mask, p); }
  void store(uint8_t* p, __m256i v) const { _mm256_mask_storeu_epi8(p, mask, v); }
  __mmask32 mask;
};

// A block of one tap for both pixels.
template <typename Lanes>
inline __m512i load_pixels(const Lanes& lanes, const uint8_t* first, const uint8_t* second) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(lanes.load(first)), lanes.load(second), 1);
}

// Eight lanes, the same for both pixels.
inline __m512i both_pixels(const void* p) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
inline __m512 both_pixels_f32(const float* p) {
  return _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(_mm256_loadu_ps(p))));
}

// Even bytes of every 16-bit unit, and odd ones, widened.
template <bool kSigned>
inline __m512i even(__m512i v) {
  return kSigned ? _mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8)
                 : _mm512_and_si512(v, _mm512_set1_epi16(0xff));
}
template <bool kSigned>
inline __m512i odd(__m512i v) {
  return kSigned ? _mm512_srai_epi16(v, 8) : _mm512_srli_epi16(v, 8);
}

// Sums of a block of two pixels: channels of kDepthwiseLane, eight a half.
// (Functions that take it are always inlined: it must live in registers.)
struct Sums {
  __m512i v[4];
};

// Pinned to its register: otherwise GCC copies the sums in every step.
inline void add(__m512i& sum_i32x16, __m512i pairs_i16x32, __m512i w_i16x32) {
  sum_i32x16 = _mm512_dpwssd_epi32(sum_i32x16, pairs_i16x32, w_i16x32);
  asm volatile("" : "+v"(sum_i32x16));
}

// Taps t and u of the block that starts at channel c; the second pixel lies `next` steps behind the
// first.
template <bool kSigned, typename Lanes>
[[gnu::always_inline]] inline void add_pair(const DepthwiseS8Params& p, const Lanes& lanes,
                                            size_t c, size_t t, size_t u, ptrdiff_t next,
                                            const int16_t* w, Sums& sums) {
  const uint8_t *const x0 = p.input[t] + c, *const x1 = p.input[u] + c;
  const __m512i a_i8x64 = load_pixels(lanes, x0, x0 + next * p.input_step[t]);
  const __m512i b_i8x64 = load_pixels(lanes, x1, x1 + next * p.input_step[u]);
  const __m512i lo_i8x64 = _mm512_unpacklo_epi16(a_i8x64, b_i8x64);
  const __m512i hi_i8x64 = _mm512_unpackhi_epi16(a_i8x64, b_i8x64);
  add(sums.v[0], even<kSigned>(lo_i8x64), both_pixels(w));
  add(sums.v[1], odd<kSigned>(lo_i8x64), both_pixels(w + 16));
  add(sums.v[2], even<kSigned>(hi_i8x64), both_pixels(w + 32));
  add(sums.v[3], odd<kSigned>(hi_i8x64), both_pixels(w + 48));
}

template <bool kSigned, typename Lanes>
[[gnu::always_inline]] inline void sum_block(const DepthwiseS8Params& p, const Lanes& lanes,
                                             size_t c, ptrdiff_t next, Sums& sums) {
  const int16_t* w = p.weights + c * ((p.taps + 1) / 2) * 2;
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) sums.v[k] = both_pixels(p.bias + c + 8 * k);
  size_t t = 0;
  for (; t + 2 <= p.taps; t += 2, w += 2 * kDepthwiseBlock)
    add_pair<kSigned>(p, lanes, c, t, t + 1, next, w, sums);
  if (t < p.taps) add_pair<kSigned>(p, lanes, c, t, t, next, w, sums);
}

// Where the sums of a block go: requantised to dst as epilogue.h defines it, multiplication and
// addition separate, or to acc.
struct ToBytes {
  explicit ToBytes(const DepthwiseS8Params& p)
      : least_f32x16(_mm512_set1_ps(static_cast<float>(p.lo - p.zero_point))),
        most_f32x16(_mm512_set1_ps(static_cast<float>(p.hi - p.zero_point))),
        zero_point_i32x16(_mm512_set1_epi32(p.zero_point)) {}

  // The low byte of every lane. NaN: max returns its second operand, lo.
  __m512i quantize(__m512i sum_i32x16, const float* scale) const {
    const __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum_i32x16), both_pixels_f32(scale));
    const __m512i q_i32x16 =
        _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(v, least_f32x16), most_f32x16));
    return _mm512_and_si512(_mm512_add_epi32(q_i32x16, zero_point_i32x16), _mm512_set1_epi32(0xff));
  }

  template <typename Lanes>
  void operator()(const DepthwiseS8Params& p, const Lanes& lanes, const Sums& s, size_t i, size_t c,
                  bool two) const {
    __m512i half[2];
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      const float* const scale = p.scale + c + 16 * k;
      const __m512i odd_i32x16 = quantize(s.v[2 * k + 1], scale + 8);
      half[k] = _mm512_or_si512(quantize(s.v[2 * k], scale), _mm512_slli_epi32(odd_i32x16, 8));
    }
    const __m512i bytes_u8x64 = _mm512_packus_epi32(half[0], half[1]);
    uint8_t* const dst = p.dst + i * p.dst_step + c;
    lanes.store(dst, _mm512_castsi512_si256(bytes_u8x64));
    if (two) lanes.store(dst + p.dst_step, _mm512_extracti64x4_epi64(bytes_u8x64, 1));
  }

  __m512 least_f32x16, most_f32x16;
  __m512i zero_point_i32x16;
};

struct ToSums {
  explicit ToSums(const DepthwiseS8Params&) {}

  // Sixteen sums of one pixel in the order of the channels: lanes of the even and the odd ones.
  static void store(__m256i even_i32x8, __m256i odd_i32x8, int32_t* acc) {
    const __m256i lo = _mm256_unpacklo_epi32(even_i32x8, odd_i32x8);
    const __m256i hi = _mm256_unpackhi_epi32(even_i32x8, odd_i32x8);
    __m256i* const first = reinterpret_cast<__m256i*>(acc);
    _mm256_storeu_si256(first, _mm256_permute2x128_si256(lo, hi, 0x20));
    _mm256_storeu_si256(first + 2, _mm256_permute2x128_si256(lo, hi, 0x31));
  }

  template <typename Lanes>
  void operator()(const DepthwiseS8Params& p, const Lanes&, const Sums& s, size_t i, size_t c,
                  bool two) const {
    int32_t* const acc = p.acc + i * p.acc_stride + c;
    for (int k = 0; k < 2; ++k) {
      const __m512i even_i32x16 = s.v[2 * k], odd_i32x16 = s.v[2 * k + 1];
      store(_mm512_castsi512_si256(even_i32x16), _mm512_castsi512_si256(odd_i32x16), acc + 8 * k);
      if (two)
        store(_mm512_extracti64x4_epi64(even_i32x16, 1), _mm512_extracti64x4_epi64(odd_i32x16, 1),
              acc + p.acc_stride + 8 * k);
    }
  }
};

template <bool kSigned, typename To>
inline void run(const DepthwiseS8Params& p) {
  const To to(p);
  for (size_t i = 0; i < p.pixels; i += 2) {
    const bool two = i + 2 <= p.pixels;
    const auto block = [&](const auto& lanes, size_t c) {
      Sums sums;
      sum_block<kSigned>(p, lanes, c, two ? 1 : 0, sums);
      to(p, lanes, sums, i, c, two);
    };
    size_t c = 0;
    for (; c + kDepthwiseBlock <= p.channels; c += kDepthwiseBlock) block(Whole{}, c);
    if (c < p.channels) block(Partial(p.channels - c), c);
    for (size_t t = 0; t < p.taps; ++t) p.input[t] += (two ? 2 : 1) * p.input_step[t];
  }
}

}  // namespace

void depthwise_s8_avx512vnni(const DepthwiseS8Params& p) {
  if (p.acc != nullptr)
    p.input_signed ? run<true, ToSums>(p) : run<false, ToSums>(p);
  else
    p.input_signed ? run<true, ToBytes>(p) : run<false, ToBytes>(p);
}

}  // namespace lepton
