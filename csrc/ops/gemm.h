// The GEMM families as the rest of the runtime sees them: kernel lists and packers. The contracts
// of the kernels themselves are in gemm_f32.h, gemm_s8.h and epilogue.h; gemm_lhs.h prepares rows,
// gemm_driver.h runs blocks of a product.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/status.h"
#include "ops/epilogue.h"
#include "ops/gemm_f32.h"
#include "ops/gemm_f32_fused.h"
#include "ops/gemm_s8.h"
#include "ops/gemm_s8_fused.h"
#include "ops/gemm_s8_windows.h"
#include "ops/gemv_f32.h"
#include "ops/kernel_list.h"

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
  GemmS8Form form;
  int mr, nr, nv, kr;
  GemmS8Kernel run;
  HoldTiles hold_tiles;  // null for most
  bool streams;
};
struct GemvF32KernelInfo {
  const char* name;
  Isa isa;
  int panels, nr;
  GemvF32Kernel run;
};
struct GemmF32FusedKernelInfo {
  const char* name;
  Isa isa;
  int mr, nr;
  GemmF32FusedKernel run;
};
struct GemmS8FusedKernelInfo {
  const char* name;
  Isa isa;
  GemmS8Form form;
  int nr;
  bool adds;     // takes a residual
  bool windows;  // takes rows that are windows
  GemmS8FusedKernel run;
};
struct GemmS8WindowsKernelInfo {
  const char* name;
  Isa isa;
  int mr, nr;
  GemmS8WindowsKernel run;
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

KernelList<GemmF32KernelInfo> gemm_f32_kernels();
KernelList<GemmS8KernelInfo> gemm_s8_kernels();
KernelList<GemvF32KernelInfo> gemv_f32_kernels();
KernelList<GemmF32FusedKernelInfo> gemm_f32_fused_kernels();
KernelList<GemmS8FusedKernelInfo> gemm_s8_fused_kernels();
KernelList<GemmS8WindowsKernelInfo> gemm_s8_windows_kernels();
KernelList<EpilogueF32KernelInfo> epilogue_f32_kernels();
KernelList<EpilogueS8KernelInfo> epilogue_s8_kernels();

// The kernel that multiplies single rows by panels packed for `gemm`; null when that is gemm
// itself.
const GemvF32KernelInfo* find_gemv_f32(const GemmF32KernelInfo& gemm);
// The kernel that finishes the results of `gemm` itself, or null.
const GemmF32FusedKernelInfo* find_gemm_f32_fused(const GemmF32KernelInfo& gemm);
const GemmS8FusedKernelInfo* find_gemm_s8_fused(const GemmS8KernelInfo& gemm);

// The kernel that reads windows against panels packed for `gemm`, or null.
const GemmS8WindowsKernelInfo* find_gemm_s8_windows(const GemmS8KernelInfo& gemm);

// The best kernel of each helper family that runs here under the cap; never null.
EpilogueF32Kernel best_epilogue_f32(Isa max);
EpilogueS8Kernel best_epilogue_s8(EpilogueS8Kind kind, Isa max);

// The kernel for fewer rows than kFewRows of panels packed for `kernel`: another one where that has
// tiles, which few rows leave empty.
constexpr size_t kFewRows = 16;
const GemmS8KernelInfo& few_rows_gemm_s8(const GemmS8KernelInfo& kernel);

// The tiles that a thread holds around its calls of a kernel, where the kernel has any.
class TileScope {
 public:
  explicit TileScope(const GemmS8KernelInfo& kernel) : TileScope(kernel.hold_tiles) {}
  explicit TileScope(HoldTiles hold) : hold_(hold) {
    if (hold_ != nullptr) hold_(true);
  }
  ~TileScope() {
    if (hold_ != nullptr) hold_(false);
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  HoldTiles hold_;
};

// The preferred gemm_s8 line for a target capped at `max`, which need not be this machine. fits:
// every value of b minus its zero point is an int8, which u8 forms ask for. pairs, runs: the caller
// packs constants, of which u8 pairs or u8 runs are proved and worth it (gemm_runs.h).
const GemmS8KernelInfo& select_gemm_s8(Isa max, bool fits, bool pairs, bool runs);
// The preferred line that runs here and that pack_gemm_s8 can pack for.
const GemmS8KernelInfo& best_gemm_s8(Isa max, bool fits);

// Packed layouts, derived from a kernel's nr, nv and kr. A panel is nr columns of b over the whole
// k, padded with zeros and to whole cache lines; panels follow one another.
//   f32: [n/nr][k][nr] float
//   s8:  [n/nr] panels of w columns: w = nr, in the last one the rest of n up to a multiple of nv
//        i16:     [k/kr][w][kr] int16
//        u8, u8 pairs: [w] int32 sums of the columns, then [k/kr][w][kr] int8
//        u8 runs: [w] int32 sums of the columns, then strips of RunSections (gemm_s8.h); the panels
//                 of all matrices of an operand are equally long, as the longest needs
constexpr size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
size_t gemm_panels(const GemmF32KernelInfo& kernel, size_t n);
size_t gemm_panels(const GemmS8KernelInfo& kernel, size_t n);
size_t gemm_k_padded(const GemmS8KernelInfo& kernel, size_t k);  // k up to a multiple of kr
// Floats from one panel to the next; bytes, for i16 and u8.
size_t gemm_panel_stride(const GemmF32KernelInfo& kernel, size_t k);
size_t gemm_panel_stride(const GemmS8KernelInfo& kernel, size_t k);
// Bytes of the packed b; an error when k or n is negative or the size passes kMaxElements bytes.
// For 8 bit of i16 and u8 only.
Status gemm_packed_size(const GemmF32KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes);
Status gemm_packed_size(const GemmS8KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes);

// Where the panels of a packed 8-bit operand lie.
struct GemmS8Layout {
  size_t panel_stride = 0;  // bytes
  size_t matrix_bytes = 0;  // of one of the operand's matrices
};
// Of an operand that pack_gemm_s8 packs.
Status gemm_s8_layout(const GemmS8KernelInfo& kernel, int64_t k, int64_t n, GemmS8Layout* layout);
// Of `matrices` matrices [k][n] that came packed, `bytes` in all; checks everything that a kernel
// takes addresses from.
Status check_packed_s8(const GemmS8KernelInfo& kernel, int64_t k, int64_t n, size_t matrices,
                       const void* packed, size_t bytes, GemmS8Layout* layout);

// One panel of a packed 8-bit b.
struct GemmS8Panel {
  size_t column, columns;  // the columns of b it holds
  size_t width;            // with those that pad it
  const int32_t* sums;     // u8 forms only, else null
  const std::byte* values;
};
GemmS8Panel gemm_s8_panel(const GemmS8KernelInfo& kernel, size_t n, const std::byte* packed,
                          size_t panel_stride, size_t panel);
// Bytes of one value of either operand, as the kernel reads them.
constexpr size_t gemm_element(const GemmS8KernelInfo& kernel) {
  return reads_u8(kernel.form) ? 1 : 2;
}

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
  std::byte* packed;
};
void pack_gemm_s8(const GemmS8KernelInfo& kernel, const PackGemmS8& args, size_t first,
                  size_t last);  // all but u8 runs
// Whether every value minus its zero point is an int8; b and the zero points are read.
bool fits_s8(const PackGemmS8& args);

}  // namespace lepton
