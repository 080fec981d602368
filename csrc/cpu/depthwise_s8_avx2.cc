// Depthwise convolution, 8-bit integers, AVX2.
//
// Thirty-two channels at a time. Interleaving two taps as 16-bit units puts bytes (c, c+1) of one
// tap beside bytes (c, c+1) of the other; masking the even bytes and shifting the odd ones down
// then leaves, in every 32-bit lane, both taps of one channel as int16, and one vpmaddwd multiplies
// and adds them exactly. That is two shuffles per 32 channels and pair of taps where widening each
// tap would take twelve. The even and odd lanes this leaves are the order of kDepthwiseLane; the
// byte results go back in order with a shift, an or and one vpackusdw. Limit: the vector pipes, 14
// instructions for 64 multiply-accumulates.
#include <immintrin.h>

#include "ops/depthwise.h"

namespace lepton {
namespace {

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// All 32 channels of a block.
struct Whole {
  __m256i load(const uint8_t* p) const { return lepton::load(p); }
  void store(uint8_t* p, __m256i v) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
};
// The first `count` < 32 channels: whole 32-bit lanes under a mask, then up to three bytes.
struct Partial {
  explicit Partial(size_t count) : words(count / 4), rest(count % 4) {
    const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i words_i32x8 = _mm256_set1_epi32(static_cast<int>(words));
    mask = _mm256_cmpgt_epi32(words_i32x8, lane_i32x8);
    rest_mask = _mm256_cmpeq_epi32(words_i32x8, lane_i32x8);
  }
  __m256i load(const uint8_t* p) const {
    const __m256i v = _mm256_maskload_epi32(reinterpret_cast<const int*>(p), mask);
    if (rest == 0) return v;
    int last = 0;
    for (size_t i = 0; i < rest; ++i) last |= p[4 * words + i] << (8 * i);
    return _mm256_or_si256(v, _mm256_and_si256(rest_mask, _mm256_set1_epi32(last)));
  }
  // By powers of two: a masked store is slow on some processors.
  void store(uint8_t* p, __m256i v) const {
    const size_t count = 4 * words + rest;
    __m128i low_i8x16 = _mm256_castsi256_si128(v);
    if (count >= 16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), low_i8x16);
      low_i8x16 = _mm256_extracti128_si256(v, 1);
      p += 16;
    }
    if (count % 16 >= 8) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(p), low_i8x16);
      low_i8x16 = _mm_srli_si128(low_i8x16, 8);
      p += 8;
    }
    uint64_t bytes = static_cast<uint64_t>(_mm_cvtsi128_si64(low_i8x16));
    for (size_t i = 0; i < count % 8; ++i, bytes >>= 8) p[i] = static_cast<uint8_t>(bytes);
  }
  size_t words, rest;
  __m256i mask, rest_mask;
};

// Even bytes of every 16-bit unit, and odd ones, widened.
template <bool kSigned>
inline __m256i even(__m256i v) {
  return kSigned ? _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8)
                 : _mm256_and_si256(v, _mm256_set1_epi16(0xff));
}
template <bool kSigned>
inline __m256i odd(__m256i v) {
  return kSigned ? _mm256_srai_epi16(v, 8) : _mm256_srli_epi16(v, 8);
}

// Sums of a block of one pixel: channels of kDepthwiseLane, eight a vector.
// (Functions that take it are always inlined: it must live in registers.)
struct Sums {
  __m256i v[4];
};

// Pinned to its register: otherwise GCC adds up all products at the end and spills them until then.
inline void add(__m256i& sum_i32x8, __m256i pairs_i16x16, __m256i w_i16x16) {
  sum_i32x8 = _mm256_add_epi32(sum_i32x8, _mm256_madd_epi16(pairs_i16x16, w_i16x16));
  asm volatile("" : "+x"(sum_i32x8));
}

// Two taps of kPixels pixels.
template <bool kSigned, int kPixels, typename Lanes>
[[gnu::always_inline]] inline void add_pair(const Lanes& lanes, const uint8_t* x0, ptrdiff_t step0,
                                            const uint8_t* x1, ptrdiff_t step1, const __m256i* w,
                                            Sums (&sums)[kPixels]) {
#pragma GCC unroll 2
  for (int j = 0; j < kPixels; ++j) {
    const __m256i a_i8x32 = lanes.load(x0 + j * step0), b_i8x32 = lanes.load(x1 + j * step1);
    const __m256i lo_i8x32 = _mm256_unpacklo_epi16(a_i8x32, b_i8x32);
    const __m256i hi_i8x32 = _mm256_unpackhi_epi16(a_i8x32, b_i8x32);
    add(sums[j].v[0], even<kSigned>(lo_i8x32), load(w));
    add(sums[j].v[1], odd<kSigned>(lo_i8x32), load(w + 1));
    add(sums[j].v[2], even<kSigned>(hi_i8x32), load(w + 2));
    add(sums[j].v[3], odd<kSigned>(hi_i8x32), load(w + 3));
  }
}

// kPixels pixels of the block that starts at channel c; input points at the first of them.
template <bool kSigned, int kPixels, typename Lanes>
[[gnu::always_inline]] inline void sum_block(const DepthwiseS8Params& p, size_t c,
                                             const Lanes& lanes, Sums (&sums)[kPixels]) {
  const uint8_t* const* x = p.input;
  const ptrdiff_t* step = p.input_step;
  const __m256i* w = reinterpret_cast<const __m256i*>(p.weights + c * ((p.taps + 1) / 2) * 2);
#pragma GCC unroll 2
  for (int j = 0; j < kPixels; ++j)
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) sums[j].v[k] = load(p.bias + c + 8 * k);
  size_t t = 0;
  for (; t + 2 <= p.taps; t += 2, w += 4)
    add_pair<kSigned>(lanes, x[t] + c, step[t], x[t + 1] + c, step[t + 1], w, sums);
  if (t < p.taps) add_pair<kSigned>(lanes, x[t] + c, step[t], x[t] + c, step[t], w, sums);
}

// Sums in the order of the channels.
inline void store_sums(const Sums& s, int32_t* acc) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m256i lo = _mm256_unpacklo_epi32(s.v[2 * half], s.v[2 * half + 1]);
    const __m256i hi = _mm256_unpackhi_epi32(s.v[2 * half], s.v[2 * half + 1]);
    __m256i* first = reinterpret_cast<__m256i*>(acc + 8 * half);
    _mm256_storeu_si256(first, _mm256_permute2x128_si256(lo, hi, 0x20));
    _mm256_storeu_si256(first + 2, _mm256_permute2x128_si256(lo, hi, 0x31));
  }
}

// The definition of epilogue.h; multiplication and addition stay separate.
struct Quantizer {
  explicit Quantizer(const DepthwiseS8Params& p)
      : least_f32x8(_mm256_set1_ps(static_cast<float>(p.lo - p.zero_point))),
        most_f32x8(_mm256_set1_ps(static_cast<float>(p.hi - p.zero_point))),
        zero_point_i32x8(_mm256_set1_epi32(p.zero_point)) {}

  // NaN: max returns its second operand, lo.
  __m256i operator()(__m256i sum_i32x8, const float* scale) const {
    const __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(sum_i32x8), _mm256_loadu_ps(scale));
    const __m256i q_i32x8 =
        _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, least_f32x8), most_f32x8));
    return _mm256_add_epi32(q_i32x8, zero_point_i32x8);
  }
  // The 32 bytes of a block in the order of the channels.
  __m256i operator()(const Sums& s, const float* scale) const {
    const __m256i low_byte = _mm256_set1_epi32(0xff);
    __m256i half[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256i even_i32x8 = _mm256_and_si256((*this)(s.v[2 * i], scale + 16 * i), low_byte);
      const __m256i odd_i32x8 =
          _mm256_and_si256((*this)(s.v[2 * i + 1], scale + 16 * i + 8), low_byte);
      half[i] = _mm256_or_si256(even_i32x8, _mm256_slli_epi32(odd_i32x8, 8));
    }
    return _mm256_packus_epi32(half[0], half[1]);
  }

  __m256 least_f32x8, most_f32x8;
  __m256i zero_point_i32x8;
};

// Where the sums of a block go: requantised to dst, or to acc.
struct ToBytes {
  explicit ToBytes(const DepthwiseS8Params& p) : quantizer(p) {}
  template <typename Lanes>
  void operator()(const DepthwiseS8Params& p, const Lanes& lanes, const Sums& s, size_t i,
                  size_t c) const {
    lanes.store(p.dst + i * p.dst_step + c, quantizer(s, p.scale + c));
  }
  const Quantizer quantizer;
};
struct ToSums {
  explicit ToSums(const DepthwiseS8Params&) {}
  template <typename Lanes>
  void operator()(const DepthwiseS8Params& p, const Lanes&, const Sums& s, size_t i,
                  size_t c) const {
    store_sums(s, p.acc + i * p.acc_stride + c);
  }
};

template <bool kSigned, int kPixels, typename To, typename Lanes>
[[gnu::always_inline]] inline void block(const DepthwiseS8Params& p, size_t i, size_t c,
                                         const To& to, const Lanes& lanes) {
  Sums sums[kPixels];
  sum_block<kSigned, kPixels>(p, c, lanes, sums);
#pragma GCC unroll 2
  for (int j = 0; j < kPixels; ++j) to(p, lanes, sums[j], i + j, c);
}

template <bool kSigned, int kPixels, typename To>
[[gnu::always_inline]] inline void all_channels(const DepthwiseS8Params& p, size_t i,
                                                const To& to) {
  size_t c = 0;
  for (; c + kDepthwiseBlock <= p.channels; c += kDepthwiseBlock)
    block<kSigned, kPixels>(p, i, c, to, Whole{});
  if (c < p.channels) block<kSigned, kPixels>(p, i, c, to, Partial(p.channels - c));
  for (size_t t = 0; t < p.taps; ++t) p.input[t] += kPixels * p.input_step[t];
}

template <bool kSigned, typename To>
inline void run(const DepthwiseS8Params& p) {
  const To to(p);
  size_t i = 0;
  for (; i + 2 <= p.pixels; i += 2) all_channels<kSigned, 2>(p, i, to);
  if (i < p.pixels) all_channels<kSigned, 1>(p, i, to);
}

}  // namespace

void depthwise_s8_avx2(const DepthwiseS8Params& p) {
  if (p.acc != nullptr)
    p.input_signed ? run<true, ToSums>(p) : run<false, ToSums>(p);
  else
    p.input_signed ? run<true, ToBytes>(p) : run<false, ToBytes>(p);
}

}  // namespace lepton
