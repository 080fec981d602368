#include "ops/gemm_lhs.h"

#include "ops/op.h"

namespace lepton {

#define LEPTON_WIDEN_S8(name, isa) void name(const WidenS8Params&);
#define LEPTON_COPY_U8(name, isa) void name(const CopyU8Params&);
#include "ops/copy_u8_kernels.inc"
#include "ops/widen_s8_kernels.inc"
#undef LEPTON_WIDEN_S8
#undef LEPTON_COPY_U8

namespace {

#define LEPTON_WIDEN_S8(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
const WidenS8KernelInfo kWidenS8[] = {
#include "ops/widen_s8_kernels.inc"
};

#define LEPTON_COPY_U8(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
const CopyU8KernelInfo kCopyU8[] = {
#include "ops/copy_u8_kernels.inc"
};

}  // namespace

KernelList<WidenS8KernelInfo> widen_s8_kernels() {
  return {kWidenS8, sizeof kWidenS8 / sizeof kWidenS8[0]};
}
KernelList<CopyU8KernelInfo> copy_u8_kernels() {
  return {kCopyU8, sizeof kCopyU8 / sizeof kCopyU8[0]};
}

GemmS8Lhs::GemmS8Lhs(const GemmS8KernelInfo& kernel, bool is_signed, Isa max)
    : is_u8_(reads_u8(kernel.form)),
      signed_(is_signed),
      kr_(static_cast<size_t>(kernel.kr)),
      widen_(widen_s8_kernels().best(max)->run),
      copy_(copy_u8_kernels().best(max)->run) {}

size_t GemmS8Lhs::row_stride(size_t k) const { return round_up(k, kr_); }

size_t GemmS8Lhs::row_bytes(size_t k) const {
  return row_stride(k) * (is_u8_ ? 1 : sizeof(int16_t));
}

int32_t GemmS8Lhs::zero_point_left(int32_t zero_point) const {
  if (!is_u8_) return 0;
  return signed_ ? zero_point + 128 : zero_point;
}

void GemmS8Lhs::prepare(size_t m, size_t k, size_t k_padded, const void* src, size_t src_stride,
                        int32_t zero_point, void* dst, size_t dst_stride) const {
  if (is_u8_) {
    const uint8_t flip = signed_ ? 0x80 : 0;
    return copy_({m, k, k_padded, static_cast<const uint8_t*>(src), src_stride, flip,
                  static_cast<uint8_t*>(dst), dst_stride});
  }
  widen_({m, k, k_padded, src, src_stride, signed_, zero_point, static_cast<int16_t*>(dst),
          dst_stride});
}

}  // namespace lepton
