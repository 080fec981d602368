#include "ops/gemm.h"

#include <string>

#include "core/shape.h"
#include "ops/op.h"

namespace lepton {

#define LEPTON_GEMM_F32(name, isa, mr, nr) void name(const GemmF32Params&);
#define LEPTON_GEMM_S8(name, isa, mr, nr, kr) void name(const GemmS8Params&);
#define LEPTON_GEMV_F32(name, isa, panels, nr) void name(const GemvF32Params&);
#define LEPTON_EPILOGUE_F32(name, isa) void name(const EpilogueF32Params&);
#define LEPTON_EPILOGUE_S8(name, isa, kind) void name(const EpilogueS8Params&);
#define LEPTON_WIDEN_S8(name, isa) void name(const WidenS8Params&);
#include "ops/epilogue_f32_kernels.inc"
#include "ops/epilogue_s8_kernels.inc"
#include "ops/gemm_f32_kernels.inc"
#include "ops/gemm_s8_kernels.inc"
#include "ops/gemv_f32_kernels.inc"
#include "ops/widen_s8_kernels.inc"
#undef LEPTON_GEMM_F32
#undef LEPTON_GEMM_S8
#undef LEPTON_GEMV_F32
#undef LEPTON_EPILOGUE_F32
#undef LEPTON_EPILOGUE_S8
#undef LEPTON_WIDEN_S8

namespace {

#define LEPTON_GEMM_F32(name, isa, mr, nr) \
  {#name, Isa::k_##isa, mr, nr, LEPTON_KERNEL_POINTER(isa, name)},
constexpr GemmF32KernelInfo kGemmF32[] = {
#include "ops/gemm_f32_kernels.inc"
};

#define LEPTON_GEMM_S8(name, isa, mr, nr, kr) \
  {#name, Isa::k_##isa, mr, nr, kr, LEPTON_KERNEL_POINTER(isa, name)},
constexpr GemmS8KernelInfo kGemmS8[] = {
#include "ops/gemm_s8_kernels.inc"
};

#define LEPTON_GEMV_F32(name, isa, panels, nr) \
  {#name, Isa::k_##isa, panels, nr, LEPTON_KERNEL_POINTER(isa, name)},
constexpr GemvF32KernelInfo kGemvF32[] = {
#include "ops/gemv_f32_kernels.inc"
};

#define LEPTON_EPILOGUE_F32(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
const EpilogueF32KernelInfo kEpilogueF32[] = {
#include "ops/epilogue_f32_kernels.inc"
};

#define LEPTON_EPILOGUE_S8(name, isa, kind) \
  {#name, Isa::k_##isa, EpilogueS8Kind::kind, LEPTON_KERNEL_POINTER(isa, name)},
const EpilogueS8KernelInfo kEpilogueS8[] = {
#include "ops/epilogue_s8_kernels.inc"
};

#define LEPTON_WIDEN_S8(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
const WidenS8KernelInfo kWidenS8[] = {
#include "ops/widen_s8_kernels.inc"
};

template <typename Info, size_t N>
constexpr bool tiles_fit(const Info (&lines)[N]) {
  for (const Info& line : lines)
    if (line.mr > kMaxMr || line.nr > kMaxNr) return false;
  return true;
}
static_assert(tiles_fit(kGemmF32) && tiles_fit(kGemmS8), "raise kMaxMr or kMaxNr");

constexpr bool rows_fit() {
  for (const GemvF32KernelInfo& line : kGemvF32)
    if (line.panels * line.nr > kMaxMr * kMaxNr) return false;
  return true;
}
static_assert(rows_fit(), "the driver's accumulators hold less than a gemv kernel makes");

template <typename Info, size_t N>
KernelList<Info> list_of(const Info (&lines)[N]) {
  return {lines, N};
}

// Elements of a panel with k_padded rows, up to a whole cache line.
template <typename Element>
size_t panel_elements(size_t k_padded, size_t nr) {
  return round_up(k_padded * nr * sizeof(Element), kCacheLine) / sizeof(Element);
}

// Bytes of ceil(n / nr) panels of ceil(k / kr)·kr rows, checked.
Status packed_bytes(int64_t k, int64_t n, size_t nr, size_t kr, size_t element, size_t* bytes) {
  const Shape shape{k, n};
  // Padding can grow a small operand by nr·kr; the slack keeps every product below within int64.
  if (!is_valid(shape) || k > kMaxElements || n > kMaxElements)
    return invalid_model("cannot pack a matrix of shape " + shape.str());
  const size_t panel = round_up(round_up(static_cast<size_t>(k), kr) * nr * element, kCacheLine);
  const size_t panels = ceil_div(static_cast<size_t>(n), nr);
  if (panel != 0 && panels > static_cast<size_t>(kMaxElements) / panel)
    return invalid_model("packed matrix of shape " + shape.str() + " is too large");
  *bytes = panel * panels;
  return {};
}

template <typename T>
void pack_s8_panel(const PackGemmS8& args, size_t column, size_t nr, size_t kr, int16_t* out) {
  const T* b = static_cast<const T*>(args.b);
  const T* zero_points = static_cast<const T*>(args.zero_points);
  const size_t columns = args.n - column < nr ? args.n - column : nr;
  for (size_t p = 0; p < args.k; p += kr) {
    for (size_t j = 0; j < nr; ++j) {
      const int zero_point =
          zero_points && j < columns ? zero_points[(column + j) * args.zero_point_stride] : 0;
      for (size_t q = 0; q < kr; ++q) {
        const bool inside = j < columns && p + q < args.k;
        *out++ =
            inside
                ? static_cast<int16_t>(
                      b[(p + q) * args.row_stride + (column + j) * args.column_stride] - zero_point)
                : int16_t{0};
      }
    }
  }
}

}  // namespace

KernelList<GemmF32KernelInfo> gemm_f32_kernels() { return list_of(kGemmF32); }
KernelList<GemmS8KernelInfo> gemm_s8_kernels() { return list_of(kGemmS8); }
KernelList<GemvF32KernelInfo> gemv_f32_kernels() { return list_of(kGemvF32); }
KernelList<EpilogueF32KernelInfo> epilogue_f32_kernels() { return list_of(kEpilogueF32); }
KernelList<EpilogueS8KernelInfo> epilogue_s8_kernels() { return list_of(kEpilogueS8); }
KernelList<WidenS8KernelInfo> widen_s8_kernels() { return list_of(kWidenS8); }

const GemvF32KernelInfo* find_gemv_f32(const GemmF32KernelInfo& gemm) {
  for (const GemvF32KernelInfo& info : kGemvF32)
    if (info.isa == gemm.isa && info.nr == gemm.nr) return &info;
  return nullptr;
}

EpilogueF32Kernel best_epilogue_f32(Isa max) { return epilogue_f32_kernels().best(max)->run; }
WidenS8Kernel best_widen_s8(Isa max) { return widen_s8_kernels().best(max)->run; }

EpilogueS8Kernel best_epilogue_s8(EpilogueS8Kind kind, Isa max) {
  const auto list = epilogue_s8_kernels();
  for (const EpilogueS8KernelInfo& info : list)
    if (info.kind == kind && is_within(info.isa, max) && list.is_runnable(info)) return info.run;
  return nullptr;
}

size_t gemm_panels(const GemmF32KernelInfo& kernel, size_t n) { return ceil_div(n, kernel.nr); }
size_t gemm_panels(const GemmS8KernelInfo& kernel, size_t n) { return ceil_div(n, kernel.nr); }
size_t gemm_k_padded(const GemmS8KernelInfo& kernel, size_t k) { return round_up(k, kernel.kr); }

size_t gemm_panel_stride(const GemmF32KernelInfo& kernel, size_t k) {
  return panel_elements<float>(k, kernel.nr);
}
size_t gemm_panel_stride(const GemmS8KernelInfo& kernel, size_t k) {
  return panel_elements<int16_t>(gemm_k_padded(kernel, k), kernel.nr);
}

Status gemm_packed_size(const GemmF32KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes) {
  return packed_bytes(k, n, kernel.nr, 1, sizeof(float), bytes);
}
Status gemm_packed_size(const GemmS8KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes) {
  return packed_bytes(k, n, kernel.nr, kernel.kr, sizeof(int16_t), bytes);
}

void pack_gemm_f32(const GemmF32KernelInfo& kernel, const PackGemmF32& args, size_t first,
                   size_t last) {
  const size_t nr = kernel.nr;
  const size_t stride = gemm_panel_stride(kernel, args.k);
  for (size_t panel = first; panel < last; ++panel) {
    const size_t column = panel * nr;
    const size_t columns = args.n - column < nr ? args.n - column : nr;
    float* out = args.packed + panel * stride;
    float* const end = out + stride;
    for (size_t p = 0; p < args.k; ++p, out += nr) {
      const float* row = args.b + p * args.row_stride + column * args.column_stride;
      for (size_t j = 0; j < columns; ++j) out[j] = args.alpha * row[j * args.column_stride];
      for (size_t j = columns; j < nr; ++j) out[j] = 0.f;
    }
    while (out < end) *out++ = 0.f;
  }
}

void pack_gemm_s8(const GemmS8KernelInfo& kernel, const PackGemmS8& args, size_t first,
                  size_t last) {
  const size_t stride = gemm_panel_stride(kernel, args.k);
  const size_t used = gemm_k_padded(kernel, args.k) * kernel.nr;
  for (size_t panel = first; panel < last; ++panel) {
    int16_t* out = args.packed + panel * stride;
    const auto pack = args.b_signed ? pack_s8_panel<int8_t> : pack_s8_panel<uint8_t>;
    pack(args, panel * kernel.nr, kernel.nr, kernel.kr, out);
    for (size_t i = used; i < stride; ++i) out[i] = 0;
  }
}

}  // namespace lepton
