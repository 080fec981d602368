// The family gemm_bf16 as the rest of the runtime sees it: its kernel list, packed weights, and how
// a product by them runs: few rows by the kernels themselves, many by gemm_f32
// (gemm_f32_driver.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/status.h"
#include "ops/gemm.h"
#include "ops/gemm_bf16.h"
#include "ops/gemm_driver.h"

namespace lepton {

// Largest nr of the list: bounds the room of an unpacked piece of a panel.
constexpr int kMaxNrBf16 = 32;

struct GemmBf16KernelInfo {
  const char* name;
  Isa isa;
  int mr, panels, nr;
  int kr;  // panels are padded to a multiple of it
  GemmBf16Kernel run;
  UnpackBf16Kernel unpack;
  int pairs_mr;
  GemmBf16PairsKernel pairs;  // for rows that are rounded; null: none
  HoldTiles hold_tiles;       // of that kernel; null: none
};
KernelList<GemmBf16KernelInfo> gemm_bf16_kernels();

// The line of this name if it runs here, else null; then *wide is the gemm_f32 kernel of its nr,
// for many rows.
const GemmBf16KernelInfo* find_gemm_bf16(std::string_view name, const GemmF32KernelInfo** wide);

// Packed weights: panels of gemm_bf16.h, each in whole cache lines, one after another.
size_t gemm_panel_stride(const GemmBf16KernelInfo& kernel, size_t k);  // in elements
// Bytes; errors as for gemm_f32.
Status gemm_packed_size(const GemmBf16KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes);

// Packs b[k][n], rows one after another, each value rounded to the nearest bfloat16, ties to even.
void pack_gemm_bf16(const GemmBf16KernelInfo& kernel, size_t k, size_t n, const float* b,
                    uint16_t* packed);

// Whether a product of m rows in all rounds them: by its whole, as no result may depend on how it
// is cut. bf16: may be null.
inline bool gemm_bf16_rounds(const GemmBf16KernelInfo* bf16, size_t m) {
  return bf16 != nullptr && bf16->pairs != nullptr && m > static_cast<size_t>(bf16->mr);
}
// gemm_f32_block where rows are rounded, and the floats that its `partial` has to hold then.
void gemm_bf16_pairs_block(const GemmF32Plan& plan, const GemmF32Block& block);
size_t gemm_bf16_partial(const GemmBf16KernelInfo& kernel, const GemmGrid& grid, size_t k);

}  // namespace lepton
