// The families gemm_f32lut4, gemm_f32s8, gemm_s8u4 and gemm_s8lut4 as the rest of the runtime sees
// them: kernel lists, the layout of packed weights, and the preparation of lhs. Contracts of the
// kernels: gemm_nbits.h and gemm_s8u4.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/gemm_nbits.h"
#include "ops/gemm_s8u4.h"
#include "ops/kernel_list.h"
#include "ops/split_rows.h"

namespace lepton {

struct GemmNBitsKernelInfo {
  const char* name;
  Isa isa;
  int mr, nr, kr;
  GemmNBitsKernel run;
};
KernelList<GemmNBitsKernelInfo> gemm_f32lut4_kernels();
KernelList<GemmNBitsKernelInfo> gemm_f32s8_kernels();

struct GemmS8U4KernelInfo {
  const char* name;
  Isa isa;
  int mr, nr, kr;
  GemmS8U4Kernel run;
};
KernelList<GemmS8U4KernelInfo> gemm_s8u4_kernels();
KernelList<GemmS8U4KernelInfo> gemm_s8lut4_kernels();

struct SplitRowKernelInfo {
  const char* name;
  Isa isa;
  SplitRowKernel run;
};
KernelList<SplitRowKernelInfo> split_row_kernels();

// Packed weights: panels of nr columns, each [groups][nr] int8 zero points (when there are any, in
// whole cache lines), then the records of gemm_nbits.h. Every group is padded to a multiple of kr.
struct GemmNBitsLayout {
  size_t nr = 0, groups = 0;
  size_t group = 0;         // rows of a group as the model has them
  size_t padded_group = 0;  // as they are packed
  size_t k_padded = 0;      // of all groups
  size_t zero_bytes = 0;    // of one panel
  size_t panel_bytes = 0;   // from one panel to the next
};
// nr, kr: of the kernel. k, group >= 1. bits: 4 or 8.
GemmNBitsLayout gemm_nbits_layout(size_t nr, size_t kr, size_t k, size_t group, size_t bits,
                                  bool zero_points);

// Row `src` of k floats as the kernels read it: dst [k_padded], each group followed by its zeros.
void pad_groups(const GemmNBitsLayout& layout, size_t k, const float* src, float* dst);
// sums [groups] of the same row.
void sum_groups(const GemmNBitsLayout& layout, size_t k, const float* src, float* sums);

}  // namespace lepton
