// Depthwise convolution with windows three taps wide, 8-bit integers, AVX512-VNNI.
//
// The bytes of four neighbouring columns, 64 channels each, are interleaved in eight shuffles, so
// that each 32-bit lane holds four columns of one channel: vpdpbusd multiplies and adds up a whole
// kernel row. Where the window moves by one column, the four columns serve two pixels, whose quads
// of weights are shifted by a byte. Up to 32 channels use half a register: its upper half takes the
// pixels that follow. Blocks of channels pass one after another, so weights stay in L1. The limit
// is ports 0 and 5: for a 3x3 window 78 instructions make the 128 results of two pixels.
#include <immintrin.h>

#include "ops/depthwise_quads.h"

namespace lepton {
namespace {

// How 64 lanes are filled: kGroups groups of pixels of kLanes channels, at a and at b.
struct Whole {
  static constexpr size_t kGroups = 1;
  __m512i load(const uint8_t* a, const uint8_t*) const { return _mm512_loadu_si512(a); }
  void store(uint8_t* a, uint8_t*, __m512i v) const { _mm512_storeu_si512(a, v); }
};
struct Part {
  static constexpr size_t kGroups = 1;
  explicit Part(size_t count) : mask((__mmask64{1} << count) - 1) {}
  __m512i load(const uint8_t* a, const uint8_t*) const { return _mm512_maskz_loadu_epi8(mask, a); }
  void store(uint8_t* a, uint8_t*, __m512i v) const { _mm512_mask_storeu_epi8(a, mask, v); }
  __mmask64 mask;
};
struct Half {
  static constexpr size_t kGroups = 2;
  static __m256i half(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  __m512i load(const uint8_t* a, const uint8_t* b) const {
    return _mm512_inserti64x4(_mm512_castsi256_si512(half(a)), half(b), 1);
  }
  // b first: a group that is not there has the place of a.
  void store(uint8_t* a, uint8_t* b, __m512i v) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(b), _mm512_extracti64x4_epi64(v, 1));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(a), _mm512_castsi512_si256(v));
  }
};
struct PartOfHalf {
  static constexpr size_t kGroups = 2;
  explicit PartOfHalf(size_t count) : mask((__mmask32{1} << count) - 1) {}
  __m512i load(const uint8_t* a, const uint8_t* b) const {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(mask, a)),
                              _mm256_maskz_loadu_epi8(mask, b), 1);
  }
  void store(uint8_t* a, uint8_t* b, __m512i v) const {
    _mm256_mask_storeu_epi8(b, mask, _mm512_extracti64x4_epi64(v, 1));
    _mm256_mask_storeu_epi8(a, mask, _mm512_castsi512_si256(v));
  }
  __mmask32 mask;
};

// The operands of a block of channels.
struct Block {
  const std::byte* at;
  __m512i bias(size_t k) const { return _mm512_load_si512(at + 64 * k); }
  __m512 scale(size_t k) const {
    return _mm512_load_ps(reinterpret_cast<const float*>(at) + 64 + 16 * k);
  }
  __m512i weights(size_t row, size_t pixel, size_t k) const {
    return _mm512_load_si512(at + 512 + 512 * row + 256 * pixel + 64 * k);
  }
};

// (Functions that take sums are always inlined: they must live in registers.)
struct Sums {
  __m512i v[4];
  [[gnu::always_inline]] explicit Sums(const Block& block)
      : v{block.bias(0), block.bias(1), block.bias(2), block.bias(3)} {}
  [[gnu::always_inline]] void add(const Block& block, size_t row, size_t pixel,
                                  const __m512i (&quads)[4]) {
    add(v[0], quads[0], block.weights(row, pixel, 0));
    add(v[1], quads[1], block.weights(row, pixel, 1));
    add(v[2], quads[2], block.weights(row, pixel, 2));
    add(v[3], quads[3], block.weights(row, pixel, 3));
  }

 private:
  // Pinned to its register: otherwise GCC copies the sums in every step.
  [[gnu::always_inline]] static void add(__m512i& sum_i32x16, __m512i quads_u8x64,
                                         __m512i w_i8x64) {
    sum_i32x16 = _mm512_dpbusd_epi32(sum_i32x16, quads_u8x64, w_i8x64);
    asm volatile("" : "+v"(sum_i32x16));
  }
};

// Sums to bytes. kPlain: no zero point, and the bounds are those of a byte. Bytes with a sign are
// made without one, 128 higher, and flipped.
template <bool kPlain>
struct ToBytes {
  explicit ToBytes(const DepthwiseQuadsParams& p) {
    const int flip = p.lo < 0 ? 0x80 : 0;
    zero_point_i16x32 = _mm512_set1_epi16(static_cast<int16_t>(p.zero_point + flip));
    lo_u8x64 = _mm512_set1_epi8(static_cast<char>(p.lo + flip));
    hi_u8x64 = _mm512_set1_epi8(static_cast<char>(p.hi + flip));
    flip_i8x64 = _mm512_set1_epi8(static_cast<char>(flip));
  }
  [[gnu::always_inline]] __m512i operator()(const Block& block, const Sums& sums) const {
    __m512i first_i16x32 =
        _mm512_packs_epi32(integers(block, sums.v[0], 0), integers(block, sums.v[1], 1));
    __m512i last_i16x32 =
        _mm512_packs_epi32(integers(block, sums.v[2], 2), integers(block, sums.v[3], 3));
    if constexpr (kPlain) return _mm512_packus_epi16(first_i16x32, last_i16x32);
    first_i16x32 = _mm512_adds_epi16(first_i16x32, zero_point_i16x32);
    last_i16x32 = _mm512_adds_epi16(last_i16x32, zero_point_i16x32);
    const __m512i bytes_u8x64 = _mm512_packus_epi16(first_i16x32, last_i16x32);
    return _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(bytes_u8x64, lo_u8x64), hi_u8x64),
                            flip_i8x64);
  }
  [[gnu::always_inline]] static __m512i integers(const Block& block, __m512i sum_i32x16, size_t k) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum_i32x16), block.scale(k)));
  }

  __m512i zero_point_i16x32, lo_u8x64, hi_u8x64, flip_i8x64;
};

// Where two groups of pixels begin, in pixels of the run, and whether they have a second one.
struct Places {
  ptrdiff_t a, b;
  bool two_a, two_b;
};

// Quads of kernel row `row` from channel c on.
template <bool kPair, typename Lanes>
[[gnu::always_inline]] inline void interleave(const DepthwiseQuadsParams& p, const Lanes& lanes,
                                              size_t row, size_t c, const Places& at,
                                              __m512i (&quads)[4]) {
  const uint8_t* const* const x = p.input + 3 * row;
  const ptrdiff_t* const step = p.input_step + 3 * row;
  const uint8_t *const a2 = x[2] + c + at.a * step[2], *const b2 = x[2] + c + at.b * step[2];
  const __m512i c0 = lanes.load(x[0] + c + at.a * step[0], x[0] + c + at.b * step[0]);
  const __m512i c1 = lanes.load(x[1] + c + at.a * step[1], x[1] + c + at.b * step[1]);
  const __m512i c2 = lanes.load(a2, b2);
  __m512i c3 = c2;  // for a single pixel anything: its weights are zeros
  if constexpr (kPair)
    c3 = lanes.load(a2 + (at.two_a ? step[2] : 0), b2 + (at.two_b ? step[2] : 0));
  const __m512i first_lo = _mm512_unpacklo_epi8(c0, c1), first_hi = _mm512_unpackhi_epi8(c0, c1);
  const __m512i last_lo = _mm512_unpacklo_epi8(c2, c3), last_hi = _mm512_unpackhi_epi8(c2, c3);
  quads[0] = _mm512_unpacklo_epi16(first_lo, last_lo);
  quads[1] = _mm512_unpackhi_epi16(first_lo, last_lo);
  quads[2] = _mm512_unpacklo_epi16(first_hi, last_hi);
  quads[3] = _mm512_unpackhi_epi16(first_hi, last_hi);
}

// One or two pixels of each group.
template <bool kPair, typename Lanes, typename To>
[[gnu::always_inline]] inline void pixels(const DepthwiseQuadsParams& p, const Lanes& lanes,
                                          const To& to, const Block& block, size_t c,
                                          const Places& at) {
  Sums first(block), second(block);
  for (size_t row = 0; row < p.rows; ++row) {
    __m512i quads[4];
    interleave<kPair>(p, lanes, row, c, at, quads);
    first.add(block, row, 0, quads);
    if constexpr (kPair) second.add(block, row, 1, quads);
  }
  const auto step = static_cast<ptrdiff_t>(p.dst_step);
  uint8_t *const a = p.dst + c + at.a * step, *const b = p.dst + c + at.b * step;
  const __m512i first_u8x64 = to(block, first);
  if constexpr (kPair) {
    const __m512i second_u8x64 = to(block, second);
    // What is not there goes where the first pixel comes afterwards.
    if (at.two_a) lanes.store(a + step, at.two_b ? b + step : a + step, second_u8x64);
  }
  lanes.store(a, b, first_u8x64);
}

template <bool kPair, typename Lanes, typename To>
void all_pixels(const DepthwiseQuadsParams& p, const Lanes& lanes, const To& to, const Block& block,
                size_t c) {
  constexpr size_t kGroup = kPair ? 2 : 1, kAtOnce = kGroup * Lanes::kGroups;
  for (size_t i = 0; i < p.pixels; i += kAtOnce) {
    const size_t left = p.pixels - i, j = left > kGroup ? i + kAtOnce - kGroup : i;
    pixels<kPair>(
        p, lanes, to, block, c,
        {static_cast<ptrdiff_t>(i), static_cast<ptrdiff_t>(j), left > 1, p.pixels - j > 1});
  }
}

template <bool kPair, typename To>
void all_channels(const DepthwiseQuadsParams& p) {
  const To to(p);
  Block block{p.operands};
  const auto run = [&](const auto& lanes, size_t c) { all_pixels<kPair>(p, lanes, to, block, c); };
  size_t c = 0;
  for (; c + kQuadBlock <= p.channels; c += kQuadBlock) {
    run(Whole{}, c);
    block.at += depthwise_quads_block_bytes(p.rows);
  }
  const size_t left = p.channels - c;
  if (left > kQuadBlock / 2) return run(Part(left), c);
  if (left == kQuadBlock / 2) return run(Half{}, c);
  if (left > 0) run(PartOfHalf(left), c);
}

// Whether the taps of a pixel are those of the one before, moved by one.
bool is_paired(const DepthwiseQuadsParams& p) {
  if (p.pixels < 2) return false;
  for (size_t t = 0; t < 3 * p.rows; t += 3)
    for (size_t i = t; i < t + 2; ++i)
      if (p.input[i] + p.input_step[i] != p.input[i + 1] || p.input_step[i] != p.input_step[i + 1])
        return false;
  return true;
}

template <typename To>
void run(const DepthwiseQuadsParams& p) {
  is_paired(p) ? all_channels<true, To>(p) : all_channels<false, To>(p);
}

}  // namespace

void depthwise_s8_quads_avx512vnni(const DepthwiseQuadsParams& p) {
  const bool plain = p.zero_point == 0 && p.lo == 0 && p.hi == 255;
  plain ? run<ToBytes<true>>(p) : run<ToBytes<false>>(p);
}

}  // namespace lepton
