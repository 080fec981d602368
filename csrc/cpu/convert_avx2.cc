// Float32 from and to the narrow dtypes, eight lanes at a time (bytes leave 32 at a time). Tails
// pass through a buffer of one vector, so every element takes the same road.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/convert.h"

namespace lepton {
namespace {

inline __m128i load64(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

inline __m256 from_u8(const void* p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load64(p))); }
inline __m256 from_s8(const void* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load64(p))); }
inline __m256 from_bool(const void* p) {
  const __m128i one = _mm_set1_epi8(1);
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_min_epu8(load64(p), one)));
}
inline __m256 from_u16(const void* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(load128(p)));
}
inline __m256 from_s16(const void* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(load128(p)));
}
inline __m256 from_s32(const void* p) {
  return _mm256_cvtepi32_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
inline __m256 from_f16(const void* p) { return _mm256_cvtph_ps(load128(p)); }
inline __m256 from_bf16(const void* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16));
}

template <typename S, __m256 (*from)(const void*)>
void load(const void* src, void* dst, size_t n) {
  const S* s = static_cast<const S*>(src);
  float* d = static_cast<float*>(dst);
  size_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(d + i, from(s + i));
  if (i == n) return;
  S in[8] = {};
  float out[8];
  for (size_t j = i; j < n; ++j) in[j - i] = s[j];
  _mm256_storeu_ps(out, from(in));
  for (size_t j = i; j < n; ++j) d[j] = out[j - i];
}

// Truncated, modulo 256. Beyond 2^31 the low byte of every float is 0, as is that of the hardware's
// "indefinite"; from 2^63 on the definition saturates to a low byte of 255.
inline __m256i low_byte(__m256 x) {
  const __m256i huge = _mm256_castps_si256(_mm256_cmp_ps(x, _mm256_set1_ps(0x1p63f), _CMP_GE_OQ));
  return _mm256_and_si256(_mm256_or_si256(_mm256_cvttps_epi32(x), huge), _mm256_set1_epi32(0xff));
}
inline __m256i non_zero(__m256 x) {
  const __m256 mask = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_UQ);
  return _mm256_and_si256(_mm256_castps_si256(mask), _mm256_set1_epi32(1));
}

// Four vectors of values <= 255 to 32 bytes.
template <__m256i (*to)(__m256)>
inline void pack32(const float* s, uint8_t* d) {
  const __m256i a = _mm256_packus_epi32(to(_mm256_loadu_ps(s)), to(_mm256_loadu_ps(s + 8)));
  const __m256i b = _mm256_packus_epi32(to(_mm256_loadu_ps(s + 16)), to(_mm256_loadu_ps(s + 24)));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing works per half
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(d), bytes);
}

template <__m256i (*to)(__m256)>
void store_bytes(const void* src, void* dst, size_t n) {
  const float* s = static_cast<const float*>(src);
  uint8_t* d = static_cast<uint8_t*>(dst);
  size_t i = 0;
  for (; i + 32 <= n; i += 32) pack32<to>(s + i, d + i);
  if (i == n) return;
  float in[32] = {};
  uint8_t out[32];
  for (size_t j = i; j < n; ++j) in[j - i] = s[j];
  pack32<to>(in, out);
  for (size_t j = i; j < n; ++j) d[j] = out[j - i];
}

inline void to_s32(const float* s, void* d) {
  const __m256 x = _mm256_loadu_ps(s);
  const __m256i too_large =
      _mm256_castps_si256(_mm256_cmp_ps(x, _mm256_set1_ps(0x1p31f), _CMP_GE_OQ));
  const __m256i ordered = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
  // The hardware gives INT_MIN for all it cannot represent: flip it where INT_MAX is due.
  const __m256i v = _mm256_xor_si256(_mm256_cvttps_epi32(x), too_large);
  _mm256_storeu_si256(static_cast<__m256i*>(d), _mm256_and_si256(v, ordered));
}
inline void to_f16(const float* s, void* d) {
  _mm_storeu_si128(static_cast<__m128i*>(d), _mm256_cvtps_ph(_mm256_loadu_ps(s), 0));
}
inline void to_bf16(const float* s, void* d) {
  const __m256 x = _mm256_loadu_ps(s);
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i v = _mm256_blendv_epi8(rounded, quiet, nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0x08);
  _mm_storeu_si128(static_cast<__m128i*>(d), _mm256_castsi256_si128(packed));
}

template <typename S, void (*to)(const float*, void*)>
void store(const void* src, void* dst, size_t n) {
  const float* s = static_cast<const float*>(src);
  S* d = static_cast<S*>(dst);
  size_t i = 0;
  for (; i + 8 <= n; i += 8) to(s + i, d + i);
  if (i == n) return;
  float in[8] = {};
  S out[8];
  for (size_t j = i; j < n; ++j) in[j - i] = s[j];
  to(in, out);
  for (size_t j = i; j < n; ++j) d[j] = out[j - i];
}

const ConvertKernel kList[] = {
    {Compute::kF32, DType::kU8, load<uint8_t, from_u8>, store_bytes<low_byte>},
    {Compute::kF32, DType::kS8, load<int8_t, from_s8>, store_bytes<low_byte>},
    {Compute::kF32, DType::kBool, load<uint8_t, from_bool>, store_bytes<non_zero>},
    {Compute::kF32, DType::kU16, load<uint16_t, from_u16>, nullptr},
    {Compute::kF32, DType::kS16, load<int16_t, from_s16>, nullptr},
    {Compute::kF32, DType::kS32, load<int32_t, from_s32>, store<int32_t, to_s32>},
    {Compute::kF32, DType::kF16, load<uint16_t, from_f16>, store<uint16_t, to_f16>},
    {Compute::kF32, DType::kBF16, load<uint16_t, from_bf16>, store<uint16_t, to_bf16>},
};

}  // namespace

ConvertKernels convert_avx2() { return {kList, sizeof kList / sizeof kList[0]}; }

}  // namespace lepton
