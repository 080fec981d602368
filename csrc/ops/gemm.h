// The GEMM families as the rest of the runtime sees them: kernel lists and packers. The contracts
// of the kernels themselves are in gemm_f32.h, gemm_s8.h, epilogue.h and widen_s8.h; gemm_driver.h
// runs blocks of a product.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/status.h"
#include "ops/epilogue.h"
#include "ops/gemm_f32.h"
#include "ops/gemm_s8.h"
#include "ops/gemv_f32.h"
#include "ops/kernel_list.h"
#include "ops/widen_s8.h"

namespace lepton {

// Largest mr and nr that a kernel list may hold: bounds the driver's accumulator tile.
constexpr int kMaxMr = 32;
constexpr int kMaxNr = 64;

struct GemmF32KernelInfo {
  const char* name;
  Isa isa;
  int mr, nr;
  GemmF32Kernel run;
};
struct GemmS8KernelInfo {
  const char* name;
  Isa isa;
  int mr, nr, kr;
  GemmS8Kernel run;
};
struct GemvF32KernelInfo {
  const char* name;
  Isa isa;
  int panels, nr;
  GemvF32Kernel run;
};
struct EpilogueF32KernelInfo {
  const char* name;
  Isa isa;
  EpilogueF32Kernel run;
};
struct EpilogueS8KernelInfo {
  const char* name;
  Isa isa;
  EpilogueS8Kind kind;
  EpilogueS8Kernel run;
};
struct WidenS8KernelInfo {
  const char* name;
  Isa isa;
  WidenS8Kernel run;
};

KernelList<GemmF32KernelInfo> gemm_f32_kernels();
KernelList<GemmS8KernelInfo> gemm_s8_kernels();
KernelList<GemvF32KernelInfo> gemv_f32_kernels();
KernelList<EpilogueF32KernelInfo> epilogue_f32_kernels();
KernelList<EpilogueS8KernelInfo> epilogue_s8_kernels();
KernelList<WidenS8KernelInfo> widen_s8_kernels();

// The kernel that multiplies single rows by panels packed for `gemm`; null when that is gemm
// itself.
const GemvF32KernelInfo* find_gemv_f32(const GemmF32KernelInfo& gemm);

// The best kernel of each helper family that runs here under the cap; never null.
EpilogueF32Kernel best_epilogue_f32(Isa max);
EpilogueS8Kernel best_epilogue_s8(EpilogueS8Kind kind, Isa max);
WidenS8Kernel best_widen_s8(Isa max);

// Packed layouts, derived from a kernel's nr and kr. A panel is nr columns of b over the whole k,
// padded with zeros and to whole cache lines; panels follow one another.
//   f32: [n/nr][k][nr] float      s8: [n/nr][k/kr][nr][kr] int16
constexpr size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
size_t gemm_panels(const GemmF32KernelInfo& kernel, size_t n);
size_t gemm_panels(const GemmS8KernelInfo& kernel, size_t n);
size_t gemm_k_padded(const GemmS8KernelInfo& kernel, size_t k);  // k up to a multiple of kr
// Elements from one panel to the next.
size_t gemm_panel_stride(const GemmF32KernelInfo& kernel, size_t k);
size_t gemm_panel_stride(const GemmS8KernelInfo& kernel, size_t k);
// Bytes of the packed b; an error when k or n is negative or the size passes kMaxElements bytes.
Status gemm_packed_size(const GemmF32KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes);
Status gemm_packed_size(const GemmS8KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes);

// Packs panels [first, last) of alpha · b[k][n]; element (p, j) is at b[p·row_stride +
// j·column_stride] (strides in elements, so a transposed b costs nothing more). `packed` is the
// start of the whole packed operand.
struct PackGemmF32 {
  size_t k, n;
  const float* b;
  size_t row_stride, column_stride;
  float* packed;
  float alpha = 1.f;
};
void pack_gemm_f32(const GemmF32KernelInfo& kernel, const PackGemmF32& args, size_t first,
                   size_t last);

// The same for 8 bit: the zero point of column j, zero_points[j·zero_point_stride] in b's own type,
// is subtracted (zero_points may be null: 0).
struct PackGemmS8 {
  size_t k, n;
  const void* b;
  bool b_signed;
  size_t row_stride, column_stride;
  const void* zero_points;
  size_t zero_point_stride;
  int16_t* packed;
};
void pack_gemm_s8(const GemmS8KernelInfo& kernel, const PackGemmS8& args, size_t first,
                  size_t last);

}  // namespace lepton
