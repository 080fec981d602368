#include <algorithm>

#include "ops/float16.h"
#include "ops/gemm_bf16_kernels.h"
#include "ops/op.h"

namespace lepton {

#define LEPTON_GEMM_BF16(name, isa, mr, panels, nr, unpack) \
  void name(const GemmBf16Params&);                         \
  void unpack(const uint16_t*, size_t, float*);
#define LEPTON_GEMM_BF16_PAIRS(name, isa, mr, nr, kr) void name(const GemmBf16PairsParams&);
#define LEPTON_GEMM_BF16_TILES(name, isa, mr, nr, kr, hold) \
  void name(const GemmBf16PairsParams&);                    \
  void hold(bool);
#include "ops/gemm_bf16_kernels.inc"
#undef LEPTON_GEMM_BF16
#undef LEPTON_GEMM_BF16_PAIRS
#undef LEPTON_GEMM_BF16_TILES

namespace {

#define LEPTON_GEMM_BF16(name, isa, mr, panels, nr, unpack) \
  {#name,                                                   \
   Isa::k_##isa,                                            \
   mr,                                                      \
   panels,                                                  \
   nr,                                                      \
   2,                                                       \
   LEPTON_KERNEL_POINTER(isa, name),                        \
   LEPTON_KERNEL_POINTER(isa, unpack),                      \
   0,                                                       \
   nullptr,                                                 \
   nullptr},
#define LEPTON_GEMM_BF16_PAIRS(name, isa, mr, nr, kr)  \
  {#name,                                              \
   Isa::k_##isa,                                       \
   12,                                                 \
   4,                                                  \
   nr,                                                 \
   kr,                                                 \
   LEPTON_KERNEL_POINTER(isa, gemm_bf16_12x32_avx512), \
   LEPTON_KERNEL_POINTER(isa, unpack_bf16_32_avx512),  \
   mr,                                                 \
   LEPTON_KERNEL_POINTER(isa, name),                   \
   nullptr},
#define LEPTON_GEMM_BF16_TILES(name, isa, mr, nr, kr, hold) \
  {#name,                                                   \
   Isa::k_##isa,                                            \
   12,                                                      \
   4,                                                       \
   nr,                                                      \
   kr,                                                      \
   LEPTON_KERNEL_POINTER(isa, gemm_bf16_12x32_avx512),      \
   LEPTON_KERNEL_POINTER(isa, unpack_bf16_32_avx512),       \
   mr,                                                      \
   LEPTON_KERNEL_POINTER(isa, name),                        \
   LEPTON_KERNEL_POINTER(isa, hold)},
constexpr GemmBf16KernelInfo kBf16[] = {
#include "ops/gemm_bf16_kernels.inc"
};
#undef LEPTON_GEMM_BF16
#undef LEPTON_GEMM_BF16_PAIRS
#undef LEPTON_GEMM_BF16_TILES

constexpr bool tiles_fit() {
  for (const GemmBf16KernelInfo& line : kBf16)
    if (line.mr > kMaxMr || line.pairs_mr > kMaxMr || line.nr > kMaxNrBf16 || line.panels > kMaxMr)
      return false;
  return true;
}
static_assert(tiles_fit(), "the driver's accumulators hold less than a kernel makes");

}  // namespace

KernelList<GemmBf16KernelInfo> gemm_bf16_kernels() {
  return {kBf16, sizeof kBf16 / sizeof kBf16[0]};
}

const GemmBf16KernelInfo* find_gemm_bf16(std::string_view name, const GemmF32KernelInfo** wide) {
  const GemmBf16KernelInfo* const found = gemm_bf16_kernels().find(name);
  if (found == nullptr) return nullptr;
  for (const GemmF32KernelInfo& info : gemm_f32_kernels()) {
    if (!is_within(info.isa, found->isa) || info.nr != found->nr) continue;
    *wide = &info;
    return found;
  }
  return nullptr;
}

size_t gemm_panel_stride(const GemmBf16KernelInfo& kernel, size_t k) {
  const size_t rows = round_up(k, static_cast<size_t>(kernel.kr));
  const size_t elements = rows * static_cast<size_t>(kernel.nr);
  return round_up(elements * sizeof(uint16_t), kCacheLine) / sizeof(uint16_t);
}

Status gemm_packed_size(const GemmBf16KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes) {
  const GemmF32KernelInfo floats = {kernel.name, kernel.isa, kernel.mr, kernel.nr, nullptr};
  const int64_t depth = k < 0 || k > kMaxElements ? k : k + kernel.kr;  // both bound the padded one
  LEPTON_RETURN_IF_ERROR(gemm_packed_size(floats, depth, n, bytes));
  *bytes = gemm_panels(floats, static_cast<size_t>(n)) *
           gemm_panel_stride(kernel, static_cast<size_t>(k)) * sizeof(uint16_t);
  return {};
}

void pack_gemm_bf16(const GemmBf16KernelInfo& kernel, size_t k, size_t n, const float* b,
                    uint16_t* packed) {
  const size_t nr = static_cast<size_t>(kernel.nr), stride = gemm_panel_stride(kernel, k);
  for (size_t column = 0; column < n; column += nr, packed += stride) {
    std::fill_n(packed, stride, uint16_t{0});
    const size_t columns = std::min(nr, n - column);
    for (size_t p = 0; p < k; ++p) {
      const float* const row = b + p * n + column;
      uint16_t* const out = packed + p / 2 * (2 * nr) + p % 2;
      for (size_t j = 0; j < columns; ++j) out[2 * j] = bf16_from_f32(row[j]);
    }
  }
}

}  // namespace lepton
