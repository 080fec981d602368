// A stretch in whole blocks of 32 bytes, or one of 16: what a block brings beyond its stretch, the
// next stretch overwrites. Up to four blocks are unrolled, and the stretches of the usual windows,
// so that a short stretch costs its loads and stores. Bound by the stores.
#include <immintrin.h>

#include "ops/gather_rows.h"

namespace lepton {
namespace {

struct HalfBlock {
  void operator()(const uint8_t* src, uint8_t* dst) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(src)));
  }
};

inline void move_block(const uint8_t* src, uint8_t* dst) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst),
                      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src)));
}

template <size_t kBlocks>
struct Blocks {
  void operator()(const uint8_t* src, uint8_t* dst) const {
#pragma GCC unroll 4
    for (size_t b = 0; b < kBlocks; ++b) move_block(src + b * kGatherBlock, dst + b * kGatherBlock);
  }
};

struct ManyBlocks {
  size_t bytes;
  void operator()(const uint8_t* src, uint8_t* dst) const {
    for (size_t b = 0; b < bytes; b += kGatherBlock) move_block(src + b, dst + b);
  }
};

// kStretches: how many, or 0: any number.
template <size_t kStretches, typename Move>
inline void gather(const GatherRowsParams& params, const Move& move) {
  const uint8_t* src = params.src;
  uint8_t* dst = params.dst;
  const size_t stretches = kStretches != 0 ? kStretches : params.stretches;
  const size_t bytes = params.bytes, line = params.line;
  for (size_t i = params.m; i > 0; --i, src += params.step, dst += params.dst_stride) {
    const uint8_t* from = src;
    uint8_t* to = dst;
#pragma GCC unroll 5
    for (size_t j = stretches; j > 0; --j, from += line, to += bytes) move(from, to);
  }
}

template <typename Move>
inline void gather(const GatherRowsParams& params, const Move& move) {
  switch (params.stretches) {
    case 3: return gather<3>(params, move);
    case 5: return gather<5>(params, move);
    default: return gather<0>(params, move);
  }
}

}  // namespace

void gather_rows_avx2(const GatherRowsParams& shared) {
  const GatherRowsParams params = shared;  // stores of bytes may alias what is not local
  if (params.bytes <= kGatherBlock / 2) return gather(params, HalfBlock{});
  switch ((params.bytes + kGatherBlock - 1) / kGatherBlock) {
    case 1: return gather(params, Blocks<1>{});
    case 2: return gather(params, Blocks<2>{});
    case 3: return gather(params, Blocks<3>{});
    case 4: return gather(params, Blocks<4>{});
    default: return gather(params, ManyBlocks{params.bytes});
  }
}

}  // namespace lepton
