#include "ops/window_kernels.h"

namespace lepton {

#define LEPTON_DEPTHWISE_F32(name, isa) void name(const DepthwiseF32Params&);
#include "ops/depthwise_f32_kernels.inc"
#undef LEPTON_DEPTHWISE_F32
#define LEPTON_DEPTHWISE_S8(name, isa) void name(const DepthwiseS8Params&);
#include "ops/depthwise_s8_kernels.inc"
#undef LEPTON_DEPTHWISE_S8
#define LEPTON_DEPTHWISE_QUADS(name, isa) void name(const DepthwiseQuadsParams&);
#include "ops/depthwise_quads_kernels.inc"
#undef LEPTON_DEPTHWISE_QUADS
#define LEPTON_POOL(name, isa, kind) void name(const PoolParams&);
#include "ops/pool_kernels.inc"
#undef LEPTON_POOL

namespace {

const DepthwiseF32KernelInfo kDepthwiseF32[] = {
#define LEPTON_DEPTHWISE_F32(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/depthwise_f32_kernels.inc"
#undef LEPTON_DEPTHWISE_F32
};
const DepthwiseS8KernelInfo kDepthwiseS8[] = {
#define LEPTON_DEPTHWISE_S8(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/depthwise_s8_kernels.inc"
#undef LEPTON_DEPTHWISE_S8
};
const DepthwiseQuadsKernelInfo kDepthwiseQuads[] = {
#define LEPTON_DEPTHWISE_QUADS(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/depthwise_quads_kernels.inc"
#undef LEPTON_DEPTHWISE_QUADS
};
const PoolKernelInfo kPool[] = {
#define LEPTON_POOL(name, isa, kind) \
  {#name, Isa::k_##isa, PoolKind::kind, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/pool_kernels.inc"
#undef LEPTON_POOL
};

template <typename Info, size_t kCount>
KernelList<Info> list_of(const Info (&lines)[kCount]) {
  return {lines, kCount};
}

}  // namespace

KernelList<DepthwiseF32KernelInfo> depthwise_f32_kernels() { return list_of(kDepthwiseF32); }
KernelList<DepthwiseS8KernelInfo> depthwise_s8_kernels() { return list_of(kDepthwiseS8); }
KernelList<DepthwiseQuadsKernelInfo> depthwise_quads_kernels() { return list_of(kDepthwiseQuads); }
KernelList<PoolKernelInfo> pool_kernels() { return list_of(kPool); }

DepthwiseQuadsKernel find_depthwise_quads(const DepthwiseS8KernelInfo& kernel) {
  for (const DepthwiseQuadsKernelInfo& info : kDepthwiseQuads)
    if (info.isa == kernel.isa) return info.run;
  return nullptr;
}

PoolKernel best_pool(PoolKind kind, Isa max) {
  for (const PoolKernelInfo& info : kPool)
    if (info.kind == kind && is_within(info.isa, max) &&
        KernelList<PoolKernelInfo>::is_runnable(info))
      return info.run;
  return nullptr;
}

void pack_depthwise_s8(const int16_t* w, size_t channels, size_t taps, int16_t* packed) {
  const size_t pairs = (taps + 1) / 2;
  for (size_t first = 0; first < channels; first += kDepthwiseBlock) {
    for (size_t pair = 0; pair < pairs; ++pair) {
      for (size_t lane = 0; lane < kDepthwiseBlock; ++lane) {
        const size_t c = first + kDepthwiseLane[lane];
        for (size_t t = 2 * pair; t < 2 * pair + 2; ++t)
          *packed++ = c < channels && t < taps ? w[t * channels + c] : int16_t{0};
      }
    }
  }
}

void pack_depthwise_quads(const int16_t* w, const int32_t* bias, const float* scale,
                          size_t channels, size_t rows, std::byte* operands) {
  for (size_t first = 0; first < channels; first += kQuadBlock) {
    const size_t left = channels - first,
                 period = left <= kQuadBlock / 2 ? kQuadBlock / 2 : kQuadBlock;
    auto* const to_bias = reinterpret_cast<int32_t*>(operands);
    auto* const to_scale = reinterpret_cast<float*>(to_bias + kQuadBlock);
    auto* const to_weights = reinterpret_cast<int8_t*>(to_scale + kQuadBlock);
    for (size_t place = 0; place < kQuadBlock; ++place) {
      const size_t channel = depthwise_quad_channel(place) % period, c = first + channel;
      const bool is_there = channel < left;
      to_bias[place] = is_there ? bias[c] : 0;
      to_scale[place] = is_there ? scale[c] : 0.f;
      for (size_t row = 0; row < rows; ++row) {
        int8_t* const quad = to_weights + row * 8 * kQuadBlock + 4 * place;
        int8_t* const shifted = quad + 4 * kQuadBlock;
        quad[3] = shifted[0] = 0;
        for (size_t t = 0; t < 3; ++t)
          quad[t] = shifted[t + 1] =
              is_there ? static_cast<int8_t>(w[(3 * row + t) * channels + c]) : int8_t{0};
      }
    }
    operands += depthwise_quads_block_bytes(rows);
  }
}

}  // namespace lepton
