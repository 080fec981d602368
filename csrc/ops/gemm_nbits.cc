#include "ops/gemm_nbits_kernels.h"

#include <algorithm>
#include <cstring>

#include "ops/gemm.h"
#include "ops/op.h"

namespace lepton {

#define LEPTON_GEMM_F32LUT4(name, isa, mr, nr, kr) void name(const GemmNBitsParams&);
#include "ops/gemm_f32lut4_kernels.inc"
#undef LEPTON_GEMM_F32LUT4
#define LEPTON_GEMM_F32S8(name, isa, mr, nr, kr) void name(const GemmNBitsParams&);
#include "ops/gemm_f32s8_kernels.inc"
#undef LEPTON_GEMM_F32S8
#define LEPTON_GEMM_S8U4(name, isa, mr, nr, kr) void name(const GemmS8U4Params&);
#include "ops/gemm_s8u4_kernels.inc"
#undef LEPTON_GEMM_S8U4
#define LEPTON_GEMM_S8LUT4(name, isa, mr, nr, kr) void name(const GemmS8U4Params&);
#include "ops/gemm_s8lut4_kernels.inc"
#undef LEPTON_GEMM_S8LUT4

namespace {

#define LEPTON_GEMM_F32LUT4(name, isa, mr, nr, kr) \
  {#name, Isa::k_##isa, mr, nr, kr, LEPTON_KERNEL_POINTER(isa, name)},
const GemmNBitsKernelInfo kLut4[] = {
#include "ops/gemm_f32lut4_kernels.inc"
};
#undef LEPTON_GEMM_F32LUT4

#define LEPTON_GEMM_F32S8(name, isa, mr, nr, kr) \
  {#name, Isa::k_##isa, mr, nr, kr, LEPTON_KERNEL_POINTER(isa, name)},
const GemmNBitsKernelInfo kS8[] = {
#include "ops/gemm_f32s8_kernels.inc"
};
#undef LEPTON_GEMM_F32S8

#define LEPTON_GEMM_S8U4(name, isa, mr, nr, kr) \
  {#name, Isa::k_##isa, mr, nr, kr, LEPTON_KERNEL_POINTER(isa, name)},
const GemmS8U4KernelInfo kS8U4[] = {
#include "ops/gemm_s8u4_kernels.inc"
};
#undef LEPTON_GEMM_S8U4

#define LEPTON_GEMM_S8LUT4(name, isa, mr, nr, kr) \
  {#name, Isa::k_##isa, mr, nr, kr, LEPTON_KERNEL_POINTER(isa, name)},
const GemmS8U4KernelInfo kS8Lut4[] = {
#include "ops/gemm_s8lut4_kernels.inc"
};
#undef LEPTON_GEMM_S8LUT4

#define LEPTON_SPLIT_ROW(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
const SplitRowKernelInfo kSplitRow[] = {
#include "ops/split_rows_kernels.inc"
};
#undef LEPTON_SPLIT_ROW

}  // namespace

KernelList<GemmNBitsKernelInfo> gemm_f32lut4_kernels() {
  return {kLut4, sizeof kLut4 / sizeof kLut4[0]};
}

KernelList<GemmNBitsKernelInfo> gemm_f32s8_kernels() { return {kS8, sizeof kS8 / sizeof kS8[0]}; }

KernelList<GemmS8U4KernelInfo> gemm_s8u4_kernels() {
  return {kS8U4, sizeof kS8U4 / sizeof kS8U4[0]};
}

KernelList<GemmS8U4KernelInfo> gemm_s8lut4_kernels() {
  return {kS8Lut4, sizeof kS8Lut4 / sizeof kS8Lut4[0]};
}

KernelList<SplitRowKernelInfo> split_row_kernels() {
  return {kSplitRow, sizeof kSplitRow / sizeof kSplitRow[0]};
}

GemmNBitsLayout gemm_nbits_layout(size_t nr, size_t kr, size_t k, size_t group, size_t bits,
                                  bool zero_points) {
  GemmNBitsLayout layout;
  layout.nr = nr;
  layout.group = std::min(group, k);
  layout.groups = ceil_div(k, layout.group);
  layout.padded_group = round_up(layout.group, kr);
  const size_t before = layout.groups - 1;
  layout.k_padded = before * layout.padded_group + round_up(k - before * layout.group, kr);
  if (zero_points) layout.zero_bytes = round_up(layout.groups * layout.nr, kCacheLine);
  const size_t row_bytes = layout.nr * bits / 8;
  layout.panel_bytes = round_up(
      layout.zero_bytes + layout.groups * layout.nr * sizeof(float) + layout.k_padded * row_bytes,
      kCacheLine);
  return layout;
}

void pad_groups(const GemmNBitsLayout& layout, size_t k, const float* src, float* dst) {
  float* const end = dst + layout.k_padded;
  for (size_t p = 0; p < k; p += layout.group, dst += layout.padded_group) {
    const size_t rows = std::min(layout.group, k - p);
    const size_t padded = std::min(layout.padded_group, static_cast<size_t>(end - dst));
    std::memcpy(dst, src + p, rows * sizeof(float));
    std::fill(dst + rows, dst + padded, 0.f);
  }
}

void sum_groups(const GemmNBitsLayout& layout, size_t k, const float* src, float* sums) {
  for (size_t p = 0; p < k; p += layout.group) {
    // Four chains: one would wait for each addition.
    const size_t end = std::min(k, p + layout.group);
    float part[4] = {};
    size_t i = p;
    for (; i + 4 <= end; i += 4)
      for (size_t c = 0; c < 4; ++c) part[c] += src[i + c];
    for (; i < end; ++i) part[0] += src[i];
    *sums++ = (part[0] + part[1]) + (part[2] + part[3]);
  }
}

}  // namespace lepton
