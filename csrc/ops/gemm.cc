#include "ops/gemm.h"

#include <iterator>

namespace lepton {

#define LEPTON_GEMM_F32(name, isa, mr, nr) void name(const GemmF32Params&);
#define LEPTON_GEMM_S8(name, isa, form, mr, nr, nv, kr, streams) void name(const GemmS8Params&);
#define LEPTON_GEMM_S8_TILES(name, isa, form, mr, nr, nv, kr, hold) \
  void name(const GemmS8Params&);                                   \
  void hold(bool);
#define LEPTON_GEMV_F32(name, isa, panels, nr) void name(const GemvF32Params&);
#define LEPTON_GEMM_F32_FUSED(name, isa, mr, nr) void name(const GemmF32FusedParams&);
#define LEPTON_GEMM_S8_FUSED(name, isa, form, nr, adds, windows) \
  void name(const GemmS8FusedParams&);
#define LEPTON_GEMM_S8_WINDOWS(name, isa, mr, nr) void name(const GemmS8WindowsParams&);
#define LEPTON_EPILOGUE_F32(name, isa) void name(const EpilogueF32Params&);
#define LEPTON_EPILOGUE_S8(name, isa, kind) void name(const EpilogueS8Params&);
#include "ops/epilogue_f32_kernels.inc"
#include "ops/epilogue_s8_kernels.inc"
#include "ops/gemm_f32_fused_kernels.inc"
#include "ops/gemm_f32_kernels.inc"
#include "ops/gemm_s8_fused_kernels.inc"
#include "ops/gemm_s8_kernels.inc"
#include "ops/gemm_s8_windows_kernels.inc"
#include "ops/gemv_f32_kernels.inc"
#undef LEPTON_GEMM_F32
#undef LEPTON_GEMM_S8
#undef LEPTON_GEMM_S8_TILES
#undef LEPTON_GEMV_F32
#undef LEPTON_GEMM_F32_FUSED
#undef LEPTON_GEMM_S8_FUSED
#undef LEPTON_GEMM_S8_WINDOWS
#undef LEPTON_EPILOGUE_F32
#undef LEPTON_EPILOGUE_S8

namespace {

#define LEPTON_GEMM_F32(name, isa, mr, nr) \
  {#name, Isa::k_##isa, mr, nr, LEPTON_KERNEL_POINTER(isa, name)},
constexpr GemmF32KernelInfo kGemmF32[] = {
#include "ops/gemm_f32_kernels.inc"
};

#define LEPTON_GEMM_S8(name, isa, form, mr, nr, nv, kr, streams)                              \
  {#name,   Isa::k_##isa, GemmS8Form::form, mr, nr, nv, kr, LEPTON_KERNEL_POINTER(isa, name), \
   nullptr, streams},
#define LEPTON_GEMM_S8_TILES(name, isa, form, mr, nr, nv, kr, hold) \
  {#name,                                                           \
   Isa::k_##isa,                                                    \
   GemmS8Form::form,                                                \
   mr,                                                              \
   nr,                                                              \
   nv,                                                              \
   kr,                                                              \
   LEPTON_KERNEL_POINTER(isa, name),                                \
   LEPTON_KERNEL_POINTER(isa, hold),                                \
   false},
constexpr GemmS8KernelInfo kGemmS8[] = {
#include "ops/gemm_s8_kernels.inc"
};

#define LEPTON_GEMV_F32(name, isa, panels, nr) \
  {#name, Isa::k_##isa, panels, nr, LEPTON_KERNEL_POINTER(isa, name)},
constexpr GemvF32KernelInfo kGemvF32[] = {
#include "ops/gemv_f32_kernels.inc"
};

#define LEPTON_GEMM_F32_FUSED(name, isa, mr, nr) \
  {#name, Isa::k_##isa, mr, nr, LEPTON_KERNEL_POINTER(isa, name)},
constexpr GemmF32FusedKernelInfo kGemmF32Fused[] = {
#include "ops/gemm_f32_fused_kernels.inc"
};

#define LEPTON_GEMM_S8_FUSED(name, isa, form, nr, adds, windows) \
  {#name, Isa::k_##isa, GemmS8Form::form, nr, adds, windows, LEPTON_KERNEL_POINTER(isa, name)},
constexpr GemmS8FusedKernelInfo kGemmS8Fused[] = {
#include "ops/gemm_s8_fused_kernels.inc"
};

#define LEPTON_GEMM_S8_WINDOWS(name, isa, mr, nr) \
  {#name, Isa::k_##isa, mr, nr, LEPTON_KERNEL_POINTER(isa, name)},
constexpr GemmS8WindowsKernelInfo kGemmS8Windows[] = {
#include "ops/gemm_s8_windows_kernels.inc"
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

template <typename Info, size_t N>
constexpr bool tiles_fit(const Info (&lines)[N]) {
  for (const Info& line : lines)
    if (line.mr > kMaxMr || line.nr > kMaxNr) return false;
  return true;
}
static_assert(tiles_fit(kGemmF32) && tiles_fit(kGemmS8), "raise kMaxMr or kMaxNr");
static_assert(std::end(kGemmS8)[-1].isa == Isa::k_scalar &&
                  std::end(kGemmS8)[-1].form == GemmS8Form::kI16,
              "the last line takes any b everywhere");

constexpr bool rows_fit() {
  for (const GemvF32KernelInfo& line : kGemvF32)
    if (line.panels * line.nr > kMaxMr * kMaxNr) return false;
  return true;
}
static_assert(rows_fit(), "the driver's accumulators hold less than a gemv kernel makes");

bool takes(GemmS8Form form, bool fits, bool pairs, bool runs) {
  switch (form) {
    case GemmS8Form::kI16: return true;
    case GemmS8Form::kU8: return fits;
    case GemmS8Form::kU8Pairs: return fits && pairs;
    default: return fits && runs;
  }
}

template <typename Info, size_t N>
KernelList<Info> list_of(const Info (&lines)[N]) {
  return {lines, N};
}

}  // namespace

KernelList<GemmF32KernelInfo> gemm_f32_kernels() { return list_of(kGemmF32); }
KernelList<GemmS8KernelInfo> gemm_s8_kernels() { return list_of(kGemmS8); }
KernelList<GemvF32KernelInfo> gemv_f32_kernels() { return list_of(kGemvF32); }
KernelList<GemmF32FusedKernelInfo> gemm_f32_fused_kernels() { return list_of(kGemmF32Fused); }
KernelList<GemmS8FusedKernelInfo> gemm_s8_fused_kernels() { return list_of(kGemmS8Fused); }
KernelList<GemmS8WindowsKernelInfo> gemm_s8_windows_kernels() { return list_of(kGemmS8Windows); }
KernelList<EpilogueF32KernelInfo> epilogue_f32_kernels() { return list_of(kEpilogueF32); }
KernelList<EpilogueS8KernelInfo> epilogue_s8_kernels() { return list_of(kEpilogueS8); }

const GemvF32KernelInfo* find_gemv_f32(const GemmF32KernelInfo& gemm) {
  for (const GemvF32KernelInfo& info : kGemvF32)
    if (info.isa == gemm.isa && info.nr == gemm.nr) return &info;
  return nullptr;
}

const GemmF32FusedKernelInfo* find_gemm_f32_fused(const GemmF32KernelInfo& gemm) {
  for (const GemmF32FusedKernelInfo& info : kGemmF32Fused)
    if (info.isa == gemm.isa && info.nr == gemm.nr) return &info;
  return nullptr;
}

const GemmS8FusedKernelInfo* find_gemm_s8_fused(const GemmS8KernelInfo& gemm) {
  for (const GemmS8FusedKernelInfo& info : kGemmS8Fused)
    if (info.isa == gemm.isa && info.form == gemm.form && info.nr == gemm.nr) return &info;
  return nullptr;
}

const GemmS8WindowsKernelInfo* find_gemm_s8_windows(const GemmS8KernelInfo& gemm) {
  for (const GemmS8WindowsKernelInfo& info : kGemmS8Windows)
    if (gemm.form == GemmS8Form::kU8 && info.isa == gemm.isa && info.nr == gemm.nr) return &info;
  return nullptr;
}

EpilogueF32Kernel best_epilogue_f32(Isa max) { return epilogue_f32_kernels().best(max)->run; }

EpilogueS8Kernel best_epilogue_s8(EpilogueS8Kind kind, Isa max) {
  const auto list = epilogue_s8_kernels();
  for (const EpilogueS8KernelInfo& info : list)
    if (info.kind == kind && is_within(info.isa, max) && list.is_runnable(info)) return info.run;
  return nullptr;
}

const GemmS8KernelInfo& few_rows_gemm_s8(const GemmS8KernelInfo& kernel) {
  if (kernel.hold_tiles == nullptr) return kernel;
  for (const GemmS8KernelInfo& info : kGemmS8)
    if (info.hold_tiles == nullptr && is_within(info.isa, kernel.isa) && info.form == kernel.form &&
        info.kr == kernel.kr && info.nr >= kernel.nr && kernel.nv % info.nv == 0)
      return info;
  return kernel;
}

const GemmS8KernelInfo& select_gemm_s8(Isa max, bool fits, bool pairs, bool runs) {
  for (const GemmS8KernelInfo& info : kGemmS8)
    if (is_within(info.isa, max) && takes(info.form, fits, pairs, runs)) return info;
  return *(std::end(kGemmS8) - 1);
}

const GemmS8KernelInfo& best_gemm_s8(Isa max, bool fits) {
  for (const GemmS8KernelInfo& info : kGemmS8)
    if (is_within(info.isa, max) && gemm_s8_kernels().is_runnable(info) &&
        takes(info.form, fits, false, false))
      return info;
  return *(std::end(kGemmS8) - 1);
}

}  // namespace lepton
