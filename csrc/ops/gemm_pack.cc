// Packed right-hand sides of the GEMM families: their sizes, and packing in portable code that the
// kernels' numbers drive.
#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "core/shape.h"
#include "ops/gemm.h"
#include "ops/gemm_runs.h"
#include "ops/op.h"

namespace lepton {
namespace {

Status check_extents(int64_t k, int64_t n) {
  // Padding can grow a small operand by nr·kr; the slack keeps every product below within int64.
  const Shape shape{k, n};
  if (!is_valid(shape) || k > kMaxElements || n > kMaxElements)
    return invalid_model("cannot pack a matrix of shape " + shape.str());
  return {};
}

Status check_size(int64_t k, int64_t n, size_t panels, size_t panel_bytes) {
  if (panel_bytes != 0 && panels > static_cast<size_t>(kMaxElements) / panel_bytes)
    return invalid_model("packed matrix of shape " + Shape{k, n}.str() + " is too large");
  return {};
}

size_t sums_bytes(const GemmS8KernelInfo& kernel, size_t width) {
  return reads_u8(kernel.form) ? width * sizeof(int32_t) : 0;
}

// Columns of the last panel that holds `columns` of b.
size_t panel_width(const GemmS8KernelInfo& kernel, size_t columns) {
  return std::min(static_cast<size_t>(kernel.nr), round_up(columns, kernel.nv));
}

size_t panel_bytes(const GemmS8KernelInfo& kernel, size_t k, size_t width) {
  const size_t values = gemm_k_padded(kernel, k) * width * gemm_element(kernel);
  return round_up(sums_bytes(kernel, width) + values, kCacheLine);
}

template <typename T>
int zero_point_of(const PackGemmS8& args, size_t column) {
  const T* const zero_points = static_cast<const T*>(args.zero_points);
  return zero_points == nullptr ? 0 : zero_points[column * args.zero_point_stride];
}

// The values of a panel to out[k/kr][width][kr], their sums by column (modulo 2^32) to `sums`.
template <typename T, typename Out>
void pack_values(const PackGemmS8& args, const GemmS8Panel& at, size_t kr, Out* out,
                 uint32_t* sums) {
  int zero_points[kMaxNr];
  for (size_t j = 0; j < at.columns; ++j) zero_points[j] = zero_point_of<T>(args, at.column + j);
  for (size_t p = 0; p < args.k; p += kr, out += at.width * kr) {
    const T* rows = static_cast<const T*>(args.b) + p * args.row_stride;
    const size_t count = std::min(kr, args.k - p);
    for (size_t j = 0; j < at.columns; ++j) {
      const T* b = rows + (at.column + j) * args.column_stride;
      for (size_t q = 0; q < count; ++q) {
        const int value = b[q * args.row_stride] - zero_points[j];
        out[j * kr + q] = static_cast<Out>(value);
        sums[j] += static_cast<uint32_t>(value);
      }
    }
  }
}

template <typename T>
void pack_panel(const GemmS8KernelInfo& kernel, const PackGemmS8& args, size_t panel) {
  const size_t stride = gemm_panel_stride(kernel, args.k);
  const GemmS8Panel at = gemm_s8_panel(kernel, args.n, args.packed, stride, panel);
  std::byte* const start = args.packed + panel * stride;
  std::byte* const values = start + sums_bytes(kernel, at.width);
  std::fill_n(start, panel_bytes(kernel, args.k, at.width), std::byte{0});
  uint32_t sums[kMaxNr] = {};
  const size_t kr = kernel.kr;
  if (reads_u8(kernel.form)) {
    pack_values<T>(args, at, kr, reinterpret_cast<int8_t*>(values), sums);
    std::memcpy(start, sums, at.width * sizeof sums[0]);
  } else {
    pack_values<T>(args, at, kr, reinterpret_cast<int16_t*>(values), sums);
  }
}

template <typename T>
bool all_fit(const PackGemmS8& args) {
  constexpr int kLeast = std::numeric_limits<int8_t>::min();
  constexpr int kMost = std::numeric_limits<int8_t>::max();
  for (size_t j = 0; j < args.n; ++j) {
    const int zero_point = zero_point_of<T>(args, j);
    // The whole range of T fits: no need to look.
    if (std::numeric_limits<T>::min() - zero_point >= kLeast &&
        std::numeric_limits<T>::max() - zero_point <= kMost)
      continue;
    const T* b = static_cast<const T*>(args.b) + j * args.column_stride;
    for (size_t p = 0; p < args.k; ++p, b += args.row_stride)
      if (*b - zero_point < kLeast || *b - zero_point > kMost) return false;
  }
  return true;
}

}  // namespace

size_t gemm_panels(const GemmF32KernelInfo& kernel, size_t n) { return ceil_div(n, kernel.nr); }
size_t gemm_panels(const GemmS8KernelInfo& kernel, size_t n) { return ceil_div(n, kernel.nr); }
size_t gemm_k_padded(const GemmS8KernelInfo& kernel, size_t k) { return round_up(k, kernel.kr); }

size_t gemm_panel_stride(const GemmF32KernelInfo& kernel, size_t k) {
  return round_up(k * kernel.nr * sizeof(float), kCacheLine) / sizeof(float);
}
size_t gemm_panel_stride(const GemmS8KernelInfo& kernel, size_t k) {
  return panel_bytes(kernel, k, kernel.nr);
}

Status gemm_packed_size(const GemmF32KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes) {
  LEPTON_RETURN_IF_ERROR(check_extents(k, n));
  const size_t panel = gemm_panel_stride(kernel, static_cast<size_t>(k)) * sizeof(float);
  const size_t panels = gemm_panels(kernel, static_cast<size_t>(n));
  LEPTON_RETURN_IF_ERROR(check_size(k, n, panels, panel));
  *bytes = panel * panels;
  return {};
}

Status gemm_packed_size(const GemmS8KernelInfo& kernel, int64_t k, int64_t n, size_t* bytes) {
  LEPTON_RETURN_IF_ERROR(check_extents(k, n));
  const size_t depth = static_cast<size_t>(k), columns = static_cast<size_t>(n);
  const size_t panels = gemm_panels(kernel, columns);
  LEPTON_RETURN_IF_ERROR(check_size(k, n, panels, gemm_panel_stride(kernel, depth)));
  *bytes = 0;
  if (panels == 0) return {};
  const size_t before = (panels - 1) * static_cast<size_t>(kernel.nr);
  *bytes = (panels - 1) * gemm_panel_stride(kernel, depth) +
           panel_bytes(kernel, depth, panel_width(kernel, columns - before));
  return {};
}

Status gemm_s8_layout(const GemmS8KernelInfo& kernel, int64_t k, int64_t n, GemmS8Layout* layout) {
  LEPTON_RETURN_IF_ERROR(gemm_packed_size(kernel, k, n, &layout->matrix_bytes));
  layout->panel_stride = gemm_panel_stride(kernel, static_cast<size_t>(k));
  return {};
}

Status check_packed_s8(const GemmS8KernelInfo& kernel, int64_t k, int64_t n, size_t matrices,
                       const void* packed, size_t bytes, GemmS8Layout* layout) {
  LEPTON_RETURN_IF_ERROR(gemm_s8_layout(kernel, k, n, layout));
  const size_t panels = gemm_panels(kernel, static_cast<size_t>(n));
  if (kernel.form == GemmS8Form::kU8Runs && matrices * panels != 0) {
    layout->panel_stride = bytes / (matrices * panels);
    layout->matrix_bytes = layout->panel_stride * panels;
  }
  if (layout->matrix_bytes != 0 &&
      matrices > static_cast<size_t>(kMaxElements) / layout->matrix_bytes)
    return invalid_model("packed operand is too large");
  if (bytes != layout->matrix_bytes * matrices)
    return invalid_model("packed operand holds " + std::to_string(bytes) + " bytes where " +
                         kernel.name + " needs " + std::to_string(layout->matrix_bytes * matrices));
  if (kernel.form != GemmS8Form::kU8Runs) return {};
  if (layout->panel_stride % kCacheLine != 0)
    return invalid_model("packed panels are not whole cache lines");
  const auto* const start = static_cast<const std::byte*>(packed);
  for (size_t i = 0; i < matrices * panels; ++i) {
    const GemmS8Panel panel =
        gemm_s8_panel(kernel, static_cast<size_t>(n), start, layout->panel_stride, i % panels);
    const size_t sums = sums_bytes(kernel, panel.width);
    if (layout->panel_stride < sums) return invalid_model("packed panels are too short");
    LEPTON_RETURN_IF_ERROR(check_gemm_runs(start + i * layout->panel_stride + sums,
                                           layout->panel_stride - sums, panel.width,
                                           static_cast<size_t>(k), nullptr));
  }
  return {};
}

GemmS8Panel gemm_s8_panel(const GemmS8KernelInfo& kernel, size_t n, const std::byte* packed,
                          size_t panel_stride, size_t panel) {
  GemmS8Panel at = {};
  at.column = panel * static_cast<size_t>(kernel.nr);
  at.columns = std::min(static_cast<size_t>(kernel.nr), n - at.column);
  at.width = panel_width(kernel, at.columns);
  const std::byte* const start = packed + panel * panel_stride;
  if (reads_u8(kernel.form)) at.sums = reinterpret_cast<const int32_t*>(start);
  at.values = start + sums_bytes(kernel, at.width);
  return at;
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
  for (size_t panel = first; panel < last; ++panel)
    args.b_signed ? pack_panel<int8_t>(kernel, args, panel)
                  : pack_panel<uint8_t>(kernel, args, panel);
}

bool fits_s8(const PackGemmS8& args) {
  return args.b_signed ? all_fit<int8_t>(args) : all_fit<uint8_t>(args);
}

}  // namespace lepton
