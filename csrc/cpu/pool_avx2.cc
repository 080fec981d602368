// Pooling, AVX2.
//
// Vectors run over channels: the whole window of one vector of channels is reduced in registers
// before the next vector. The last vector of a pixel overlaps the one before it, so no tail loop is
// needed unless a pixel is narrower than a vector; 8-bit maxima then take vectors of half the
// width, and so on down to four channels. Limit: the load ports, one activation vector per
// operation.
#include <immintrin.h>

#include "ops/pool.h"

namespace lepton {
namespace {

template <typename T>
inline const T* tap(const PoolParams& p, size_t t, size_t i, size_t c) {
  return static_cast<const T*>(p.input[t]) + static_cast<ptrdiff_t>(i) * p.input_step[t] + c;
}
inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// A reduction of kLanes channels of one pixel; `one` does a single channel.
struct MaxF32 {
  using In = float;
  using Out = float;
  static constexpr size_t kLanes = 8;
  static void vector(const PoolParams& p, size_t i, size_t c, float* dst) {
    __m256 m = _mm256_set1_ps(-__builtin_inff());
    for (size_t t = 0; t < p.taps; ++t)
      m = _mm256_max_ps(_mm256_loadu_ps(tap<float>(p, t, i, c)), m);
    _mm256_storeu_ps(dst, m);
  }
  static float one(const PoolParams& p, size_t i, size_t c) {
    float m = -__builtin_inff();
    for (size_t t = 0; t < p.taps; ++t)
      m = *tap<float>(p, t, i, c) > m ? *tap<float>(p, t, i, c) : m;
    return m;
  }
};

template <typename T>
constexpr bool kIsVoid = false;
template <>
constexpr bool kIsVoid<void> = true;

// A reduction of this many channels where a pixel has fewer than a whole vector's; none by default.
template <typename Reduction>
struct Narrower {
  using type = void;
};

template <typename T>
inline T max_of(const PoolParams& p, size_t i, size_t c, T lowest) {
  T m = lowest;
  for (size_t t = 0; t < p.taps; ++t) m = *tap<T>(p, t, i, c) > m ? *tap<T>(p, t, i, c) : m;
  return m;
}

template <typename T, int kLowest>
struct Max8 {
  using In = T;
  using Out = T;
  static constexpr size_t kLanes = 32;
  static void vector(const PoolParams& p, size_t i, size_t c, T* dst) {
    __m256i m = _mm256_set1_epi8(static_cast<char>(kLowest));
    for (size_t t = 0; t < p.taps; ++t) {
      const __m256i x = load(tap<T>(p, t, i, c));
      m = kLowest == 0 ? _mm256_max_epu8(x, m) : _mm256_max_epi8(x, m);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), m);
  }
  static T one(const PoolParams& p, size_t i, size_t c) { return max_of<T>(p, i, c, kLowest); }
};

// Of 16, 8 or 4 channels: the low bytes of a 128-bit vector.
template <typename T, int kLowest, size_t kBytes>
struct NarrowMax8 {
  using In = T;
  using Out = T;
  static constexpr size_t kLanes = kBytes;
  static void vector(const PoolParams& p, size_t i, size_t c, T* dst) {
    __m128i m = _mm_set1_epi8(static_cast<char>(kLowest));
    for (size_t t = 0; t < p.taps; ++t) {
      __m128i x = _mm_setzero_si128();
      __builtin_memcpy(&x, tap<T>(p, t, i, c), kBytes);
      m = kLowest == 0 ? _mm_max_epu8(x, m) : _mm_max_epi8(x, m);
    }
    __builtin_memcpy(dst, &m, kBytes);
  }
  static T one(const PoolParams& p, size_t i, size_t c) { return max_of<T>(p, i, c, kLowest); }
};

template <typename T, int kLowest>
struct Narrower<Max8<T, kLowest>> {
  using type = NarrowMax8<T, kLowest, 16>;
};
template <typename T, int kLowest, size_t kBytes>
struct Narrower<NarrowMax8<T, kLowest, kBytes>> {
  using type = NarrowMax8<T, kLowest, kBytes / 2>;
};
template <typename T, int kLowest>
struct Narrower<NarrowMax8<T, kLowest, 4>> {
  using type = void;
};

struct AverageF32 {
  using In = float;
  using Out = float;
  static constexpr size_t kLanes = 8;
  static void vector(const PoolParams& p, size_t i, size_t c, float* dst) {
    __m256 sum = _mm256_setzero_ps();
    for (size_t t = 0; t < p.taps; ++t)
      sum = _mm256_add_ps(sum, _mm256_loadu_ps(tap<float>(p, t, i, c)));
    _mm256_storeu_ps(dst, _mm256_div_ps(sum, _mm256_set1_ps(p.divisor)));
  }
  static float one(const PoolParams& p, size_t i, size_t c) {
    float sum = 0.f;
    for (size_t t = 0; t < p.taps; ++t) sum += *tap<float>(p, t, i, c);
    return sum / p.divisor;
  }
};

// Sixteen channels summed in int16 for up to 128 taps (128 · 255 < 2^15), then carried to int32.
template <typename T>
struct Sum8 {
  using In = T;
  using Out = int32_t;
  static constexpr size_t kLanes = 16;
  static constexpr size_t kBatch = 128;
  static void vector(const PoolParams& p, size_t i, size_t c, int32_t* dst) {
    __m256i first = _mm256_set1_epi32(p.bias), second = first;
    for (size_t t = 0; t < p.taps;) {
      const size_t end = p.taps - t < kBatch ? p.taps : t + kBatch;
      __m256i sum_i16x16 = _mm256_setzero_si256();
      for (; t < end; ++t) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tap<T>(p, t, i, c)));
        const bool is_signed = static_cast<T>(-1) < 0;
        sum_i16x16 = _mm256_add_epi16(
            sum_i16x16, is_signed ? _mm256_cvtepi8_epi16(x) : _mm256_cvtepu8_epi16(x));
      }
      first = _mm256_add_epi32(first, _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sum_i16x16)));
      second =
          _mm256_add_epi32(second, _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sum_i16x16, 1)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), first);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst) + 1, second);
  }
  static int32_t one(const PoolParams& p, size_t i, size_t c) {
    int32_t sum = p.bias;
    for (size_t t = 0; t < p.taps; ++t) sum += *tap<T>(p, t, i, c);
    return sum;
  }
};

template <typename Reduction>
inline void run(const PoolParams& p) {
  constexpr size_t kLanes = Reduction::kLanes;
  using Narrow = typename Narrower<Reduction>::type;
  if constexpr (!kIsVoid<Narrow>) {
    if (p.channels < kLanes) return run<Narrow>(p);
  }
  for (size_t i = 0; i < p.pixels; ++i) {
    typename Reduction::Out* dst = static_cast<typename Reduction::Out*>(p.dst) + i * p.dst_step;
    size_t c = 0;
    for (; c + kLanes <= p.channels; c += kLanes) Reduction::vector(p, i, c, dst + c);
    if (c < p.channels && p.channels >= kLanes) {
      const size_t last = p.channels - kLanes;
      Reduction::vector(p, i, last, dst + last);
      c = p.channels;
    }
    for (; c < p.channels; ++c) dst[c] = Reduction::one(p, i, c);
  }
}

}  // namespace

void pool_max_f32_avx2(const PoolParams& p) { run<MaxF32>(p); }
void pool_max_u8_avx2(const PoolParams& p) { run<Max8<uint8_t, 0>>(p); }
void pool_max_s8_avx2(const PoolParams& p) { run<Max8<int8_t, -128>>(p); }
void pool_average_f32_avx2(const PoolParams& p) { run<AverageF32>(p); }
void pool_sum_u8_avx2(const PoolParams& p) { run<Sum8<uint8_t>>(p); }
void pool_sum_s8_avx2(const PoolParams& p) { run<Sum8<int8_t>>(p); }

}  // namespace lepton
