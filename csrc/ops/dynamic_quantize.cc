#include "ops/dynamic_quantize.h"

#include <algorithm>
#include <cmath>

#include "ops/op.h"

namespace lepton {
namespace {

constexpr int64_t kChunk = 1 << 15;
constexpr size_t kTile = 512;

}  // namespace

DynamicQuantizer::DynamicQuantizer(Isa isa)
    : row_min_(find_reduce(ReduceOp::kMin, isa).row),
      row_max_(find_reduce(ReduceOp::kMax, isa).row),
      quantize_(find_micro(MicroOp::kQuantize, Compute::kF32, isa)),
      store_(find_store(Compute::kF32, DType::kU8, isa)) {}

size_t DynamicQuantizer::Bound::scratch_bytes() const {
  return static_cast<size_t>(chunks) * kCacheLine;
}

DynamicQuantizer::Bound DynamicQuantizer::bind(int64_t n, int threads) {
  return {n, std::max<int64_t>(1, std::min<int64_t>(n / kChunk, 4 * threads))};
}

DynamicQuantizer::Range DynamicQuantizer::range(const Bound& bound, const float* x,
                                                std::byte* scratch, Parallel parallel) const {
  const auto extent_of = [&](int64_t c) {
    return reinterpret_cast<float*>(scratch + static_cast<size_t>(c) * kCacheLine);
  };
  parallel.loop(bound.chunks, [&](int64_t c, int) {
    const int64_t first = bound.n * c / bound.chunks;
    const size_t count = static_cast<size_t>(bound.n * (c + 1) / bound.chunks - first);
    extent_of(c)[0] = static_cast<float>(row_min_(x + first, count, 0));
    extent_of(c)[1] = static_cast<float>(row_max_(x + first, count, 0));
  });
  float lo = 0, hi = 0;
  for (int64_t c = 0; c < bound.chunks; ++c) {
    lo = extent_of(c)[0] < lo ? extent_of(c)[0] : lo;
    hi = extent_of(c)[1] > hi ? extent_of(c)[1] : hi;
  }
  const float scale = hi == lo ? 1.0f : (hi - lo) / 255.0f;
  const float bias = 0.0f - lo / scale;
  const float zero_point = std::rint(bias > 0 ? (bias < 255 ? bias : 255.0f) : 0.0f);
  return {scale, static_cast<uint8_t>(zero_point)};
}

void DynamicQuantizer::quantize(const Bound& bound, const float* x, const Range& range, uint8_t* y,
                                Parallel parallel) const {
  const float zero_point = range.zero_point, lo = 0, hi = 255;
  parallel.loop(bound.chunks, [&](int64_t c, int) {
    alignas(kCacheLine) float tile[kTile];
    const int64_t last = bound.n * (c + 1) / bound.chunks;
    for (int64_t i = bound.n * c / bound.chunks; i < last; i += kTile) {
      const size_t n = std::min(kTile, static_cast<size_t>(last - i));
      quantize_({n, {x + i, &range.scale, &zero_point, &lo, &hi}, tile, 0x1e});
      store_(tile, y + i, n);
    }
  });
}

}  // namespace lepton
