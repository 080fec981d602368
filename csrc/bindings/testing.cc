// _core.testing: one microkernel call on guarded copies of its operands. Operands are flat arrays
// with explicit strides, exactly as long as the contract says is accessible; destinations are
// filled with the caller's pattern first, so that tests see what was left alone.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/guarded_buffer.h"
#include "ops/gemm.h"
#include "ops/gemm_bf16_kernels.h"
#include "ops/gemm_lhs.h"
#include "ops/gemm_runs.h"
#include "ops/peak.h"

namespace py = pybind11;

namespace lepton {
namespace {

template <typename T>
using Flat = py::array_t<T, py::array::c_style>;
template <typename T>
using Optional = std::optional<Flat<T>>;

template <typename Info>
const Info& runnable(KernelList<Info> list, const std::string& kernel) {
  const Info* info = list.find(kernel);
  if (info == nullptr) throw py::value_error("kernel '" + kernel + "' does not run here");
  return *info;
}

// Elements of `rows` rows of n, `stride` apart.
size_t extent(size_t rows, size_t n, size_t stride) {
  if (rows == 0 || n == 0) return 0;
  if (stride < n && rows > 1) throw py::value_error("rows overlap");
  return (rows - 1) * stride + n;
}

void expect(const py::array& array, size_t elements) {
  if (static_cast<size_t>(array.size()) != elements)
    throw py::value_error("operand has " + std::to_string(array.size()) + " elements, not " +
                          std::to_string(elements));
}

// A guarded copy; null when the operand is omitted.
class Operand {
 public:
  Operand(const py::array& array, bool at_start)
      : buffer_(std::make_unique<GuardedBuffer>(array.data(), array.nbytes(), at_start)) {}
  template <typename T>
  Operand(const Optional<T>& array, size_t elements, bool at_start) {
    if (!array) return;
    expect(*array, elements);
    buffer_ = std::make_unique<GuardedBuffer>(array->data(), array->nbytes(), at_start);
  }
  template <typename T>
  T* as() const {
    return buffer_ ? buffer_->as<T>() : nullptr;
  }

 private:
  std::unique_ptr<GuardedBuffer> buffer_;
};

py::array copy_out(const py::array& like, const Operand& operand) {
  py::array out(like.dtype(), like.size());
  std::memcpy(out.mutable_data(), operand.as<uint8_t>(), out.nbytes());
  return out;
}

// One register tile of mr × n; `params` holds what the families do not share.
template <typename Params, typename Sum, typename Info>
Flat<Sum> run_gemm(const Info& info, Params params, size_t n, size_t kr, const py::array& lhs,
                   const py::array& panel, size_t panel_elements, bool at_start,
                   const Optional<Sum>& start, HoldTiles hold_tiles = nullptr) {
  if (params.m < 1 || params.m > static_cast<size_t>(info.mr) || params.k % kr != 0)
    throw py::value_error("bad m or k");
  expect(lhs, extent(params.m, params.k, params.lhs_stride));
  expect(panel, panel_elements);
  const Operand lhs_copy(lhs, at_start), panel_copy(panel, at_start);
  Flat<Sum> dst(static_cast<py::ssize_t>(info.mr * n));
  std::memset(dst.mutable_data(), 0, dst.nbytes());
  if (start) {
    expect(*start, info.mr * n);
    std::memcpy(dst.mutable_data(), start->data(), dst.nbytes());
  }
  const Operand dst_copy(dst, at_start);
  params.lhs = lhs_copy.as<std::remove_pointer_t<decltype(params.lhs)>>();
  params.rhs = panel_copy.as<std::remove_pointer_t<decltype(params.rhs)>>();
  params.dst = dst_copy.as<Sum>();
  params.accumulate = start.has_value();
  if (hold_tiles != nullptr) hold_tiles(true);
  info.run(params);
  if (hold_tiles != nullptr) hold_tiles(false);
  std::memcpy(dst.mutable_data(), dst_copy.as<uint8_t>(), dst.nbytes());
  return dst;
}

Flat<float> gemm_f32(const std::string& kernel, size_t m, size_t k, const Flat<float>& lhs,
                     size_t lhs_stride, const Flat<float>& panel, bool at_start,
                     const Optional<float>& start) {
  const GemmF32KernelInfo& info = runnable(gemm_f32_kernels(), kernel);
  GemmF32Params params = {};
  params.m = m, params.k = k, params.lhs_stride = lhs_stride;
  return run_gemm<GemmF32Params, float>(info, params, info.nr, 1, lhs, panel, k * info.nr, at_start,
                                        start);
}

// panels: [panels][k][nr].
Flat<float> gemv_f32(const std::string& kernel, size_t panels, size_t k, const Flat<float>& lhs,
                     const Flat<float>& rhs, bool at_start) {
  const GemvF32KernelInfo& info = runnable(gemv_f32_kernels(), kernel);
  const size_t nr = info.nr;
  if (panels < 1 || panels > static_cast<size_t>(info.panels)) throw py::value_error("bad panels");
  expect(lhs, k);
  expect(rhs, panels * k * nr);
  Flat<float> dst(static_cast<py::ssize_t>(panels * nr));
  std::memset(dst.mutable_data(), 0, dst.nbytes());
  const Operand lhs_copy(lhs, at_start), rhs_copy(rhs, at_start), dst_copy(dst, at_start);
  info.run({panels, k, lhs_copy.as<float>(), rhs_copy.as<float>(), k * nr, dst_copy.as<float>()});
  return copy_out(dst, dst_copy);
}

// rhs: [panels][ceil(k/2)][nr][2] bfloat16.
Flat<float> gemm_bf16(const std::string& kernel, size_t m, size_t panels, size_t k,
                      const Flat<float>& lhs, size_t lhs_stride, const Flat<uint16_t>& rhs,
                      bool at_start) {
  const GemmBf16KernelInfo& info = runnable(gemm_bf16_kernels(), kernel);
  const size_t nr = info.nr, stride = (k + 1) / 2 * 2 * nr;
  if (m < 1 || m > static_cast<size_t>(info.mr)) throw py::value_error("bad m");
  if (panels < 1 || panels > static_cast<size_t>(m == 1 ? info.panels : 1))
    throw py::value_error("bad panels");
  expect(lhs, extent(m, k, lhs_stride));
  expect(rhs, panels * stride);
  Flat<float> dst(static_cast<py::ssize_t>(m * panels * nr));
  std::memset(dst.mutable_data(), 0, dst.nbytes());
  const Operand lhs_copy(lhs, at_start), rhs_copy(rhs, at_start), dst_copy(dst, at_start);
  info.run({m, panels, k, lhs_copy.as<float>(), lhs_stride, rhs_copy.as<uint16_t>(), stride,
            dst_copy.as<float>()});
  return copy_out(dst, dst_copy);
}

// A kernel of rows that are rounded: lhs rows and panel of bfloat16, k a multiple of kr.
Flat<float> gemm_bf16_pairs(const std::string& kernel, size_t m, size_t k,
                            const Flat<uint16_t>& lhs, size_t lhs_stride,
                            const Flat<uint16_t>& panel, bool at_start,
                            const Optional<float>& start) {
  const GemmBf16KernelInfo model = modelled_gemm_bf16();
  const GemmBf16KernelInfo& info =
      kernel == model.name ? model : runnable(gemm_bf16_kernels(), kernel);
  const size_t nr = info.nr, rows = info.pairs_mr;
  if (info.pairs == nullptr || m < 1 || m > rows || k % info.kr != 0)
    throw py::value_error("bad kernel, m or k");
  expect(lhs, extent(m, k, lhs_stride));
  expect(panel, k * nr);
  Flat<float> dst(static_cast<py::ssize_t>(rows * nr));
  std::memset(dst.mutable_data(), 0, dst.nbytes());
  if (start) {
    expect(*start, rows * nr);
    std::memcpy(dst.mutable_data(), start->data(), dst.nbytes());
  }
  const Operand lhs_copy(lhs, at_start), rhs_copy(panel, at_start), dst_copy(dst, at_start);
  const TileScope tiles(info.hold_tiles);
  info.pairs({m, k, lhs_copy.as<uint16_t>(), lhs_stride, rhs_copy.as<uint16_t>(),
              dst_copy.as<float>(), start.has_value()});
  return copy_out(dst, dst_copy);
}

// One panel [ceil(k/2)][nr][2] as floats [k][nr].
Flat<float> unpack_bf16(const std::string& kernel, size_t k, const Flat<uint16_t>& panel,
                        bool at_start) {
  const GemmBf16KernelInfo& info = runnable(gemm_bf16_kernels(), kernel);
  const size_t nr = info.nr;
  expect(panel, (k + 1) / 2 * 2 * nr);
  Flat<float> dst(static_cast<py::ssize_t>(k * nr));
  std::memset(dst.mutable_data(), 0, dst.nbytes());
  const Operand panel_copy(panel, at_start), dst_copy(dst, at_start);
  info.unpack(panel_copy.as<uint16_t>(), k, dst_copy.as<float>());
  return copy_out(dst, dst_copy);
}

// dst: m rows of n, dst_stride apart, as they are before; residual likewise.
Flat<float> gemm_f32_fused(const std::string& kernel, size_t m, size_t n, size_t k,
                           const Flat<float>& lhs, const Flat<float>& panel,
                           const Optional<float>& bias, const Optional<float>& residual,
                           std::pair<float, float> clamp, const Flat<float>& dst, size_t dst_stride,
                           bool at_start) {
  const GemmF32FusedKernelInfo& info = runnable(gemm_f32_fused_kernels(), kernel);
  if (m < 1 || m > static_cast<size_t>(info.mr) || n < 1 || n > static_cast<size_t>(info.nr))
    throw py::value_error("bad m or n");
  expect(lhs, m * k);
  expect(panel, k * info.nr);
  expect(dst, (m - 1) * dst_stride + n);
  if (bias) expect(*bias, n);
  if (residual) expect(*residual, (m - 1) * dst_stride + n);
  const Operand lhs_copy(lhs, at_start), panel_copy(panel, at_start), dst_copy(dst, at_start);
  const Operand bias_copy(bias ? *bias : dst, at_start);
  const Operand residual_copy(residual ? *residual : dst, at_start);
  GemmF32FusedParams params = {};
  params.m = m, params.n = n, params.k = k;
  params.lhs = lhs_copy.as<float>(), params.lhs_stride = k;
  params.rhs = panel_copy.as<float>();
  params.bias = bias ? bias_copy.as<float>() : nullptr;
  params.residual = residual ? residual_copy.as<float>() : nullptr;
  params.min = clamp.first, params.max = clamp.second;
  params.dst = dst_copy.as<float>();
  params.residual_stride = params.dst_stride = dst_stride;
  info.run(params);
  Flat<float> made(dst.size());
  return copy_out(made, dst_copy);
}

Flat<int32_t> gemm_s8(const std::string& kernel, size_t m, size_t n, size_t k, const py::array& lhs,
                      size_t lhs_stride, const py::array& panel, bool at_start,
                      const Optional<int32_t>& start, bool hold) {
  const GemmS8KernelInfo model = modelled_gemm_s8();
  const GemmS8KernelInfo& info = kernel == model.name ? model : runnable(gemm_s8_kernels(), kernel);
  const bool is_u8 = reads_u8(info.form);
  const auto has = [](const py::array& a, const py::dtype& dtype) { return a.dtype().is(dtype); };
  if (is_u8 ? !has(lhs, py::dtype::of<uint8_t>()) || !has(panel, py::dtype::of<int8_t>())
            : !has(lhs, py::dtype::of<int16_t>()) || !has(panel, py::dtype::of<int16_t>()))
    throw py::type_error("operands are not in the kernel's form");
  if (n < 1 || n > static_cast<size_t>(info.nr) || n % info.nv != 0) throw py::value_error("bad n");
  GemmS8Params params = {};
  params.m = m, params.n = n, params.k = k, params.lhs_stride = lhs_stride;
  size_t elements = k * n;
  if (info.form == GemmS8Form::kU8Runs) {
    elements = static_cast<size_t>(panel.size());
    raise_if_error(
        check_gemm_runs(static_cast<const std::byte*>(panel.data()), elements, n, k, nullptr));
  }
  params.next = reinterpret_cast<const std::byte*>(panel.data());  // may end anywhere
  params.next_stride = kCacheLine;
  return run_gemm<GemmS8Params, int32_t>(info, params, n, info.kr, lhs, panel, elements, at_start,
                                         start, hold ? info.hold_tiles : nullptr);
}

// requantize: zero_point, lo, hi. windows: where rows begin in lhs, and runs, run and pitch; or
// none: lhs is [m][k].
using Windows = std::tuple<std::vector<size_t>, size_t, size_t, size_t>;
Flat<uint8_t> gemm_s8_fused(const std::string& kernel, size_t m, size_t n, size_t width, size_t k,
                            const Flat<uint8_t>& lhs, const Flat<int8_t>& panel,
                            const Optional<int32_t>& bias, const Flat<float>& scale,
                            std::array<int, 3> requantize, const Flat<uint8_t>& dst,
                            size_t dst_stride, bool at_start,
                            const std::optional<py::array>& residual, float r_scale,
                            int r_zero_point, const std::optional<Windows>& windows) {
  const GemmS8FusedKernelInfo& info = runnable(gemm_s8_fused_kernels(), kernel);
  if (m < 1 || n < 1 || n > width || width > static_cast<size_t>(info.nr))
    throw py::value_error("bad m, n or width");
  if (windows && !info.windows) throw py::value_error(kernel + " takes no windows");
  if (!windows) expect(lhs, m * k);
  expect(scale, n);
  expect(dst, extent(m, n, dst_stride));
  if (info.form == GemmS8Form::kU8Runs)
    raise_if_error(check_gemm_runs(reinterpret_cast<const std::byte*>(panel.data()),
                                   static_cast<size_t>(panel.size()), width, k, nullptr));
  else
    expect(panel, k * width);
  const Operand lhs_copy(lhs, at_start), panel_copy(panel, at_start), dst_copy(dst, at_start);
  const Operand bias_copy(bias, n, at_start), scale_copy(scale, at_start);
  if (residual && !info.adds) throw py::value_error(kernel + " takes no residual");
  if (residual) expect(*residual, extent(m, n, dst_stride));
  const Operand residual_copy(residual ? *residual : py::array(dst), at_start);
  const bool r_signed = residual && residual->dtype().is(py::dtype::of<int8_t>());
  const auto [zero_point, lo, hi] = requantize;
  GemmS8FusedParams params = {};
  params.m = m, params.n = n, params.width = width, params.k = k;
  params.lhs = lhs_copy.as<uint8_t>(), params.lhs_stride = k;
  std::vector<const uint8_t*> rows;
  if (windows) {
    std::vector<size_t> starts;
    std::tie(starts, params.runs, params.run, params.pitch) = *windows;
    for (const size_t start : starts) rows.push_back(params.lhs + start);
    params.lhs = nullptr, params.windows = rows.data();
  }
  params.rhs = panel_copy.as<int8_t>();
  params.next = panel_copy.as<std::byte>();  // may end anywhere, as it is only fetched
  params.next_lines = 2 * m + k;
  params.bias = bias_copy.as<int32_t>(), params.scale = scale_copy.as<float>();
  params.zero_point = zero_point, params.lo = lo, params.hi = hi;
  params.dst = dst_copy.as<uint8_t>(), params.dst_stride = dst_stride;
  if (residual) params.residual = residual_copy.as<uint8_t>();
  params.residual_stride = dst_stride;
  params.r_signed = r_signed, params.r_scale = r_scale, params.r_zero_point = r_zero_point;
  info.run(params);
  return copy_out(dst, dst_copy);
}

Flat<int16_t> widen_s8(const std::string& kernel, size_t m, size_t k, size_t k_padded,
                       const py::array& src, size_t src_stride, int zero_point,
                       const Flat<int16_t>& dst, size_t dst_stride, bool at_start) {
  const WidenS8KernelInfo& info = runnable(widen_s8_kernels(), kernel);
  if (src.itemsize() != 1 || k_padded < k) throw py::value_error("bad src or k_padded");
  expect(src, extent(m, k, src_stride));
  expect(dst, extent(m, k_padded, dst_stride));
  const Operand src_copy(src, at_start), dst_copy(dst, at_start);
  WidenS8Params params = {};
  params.m = m, params.k = k, params.k_padded = k_padded;
  params.src = src_copy.as<void>(), params.src_stride = src_stride;
  params.src_signed = src.dtype().is(py::dtype::of<int8_t>());
  params.zero_point = zero_point;
  params.dst = dst_copy.as<int16_t>(), params.dst_stride = dst_stride;
  info.run(params);
  return copy_out(dst, dst_copy);
}

Flat<uint8_t> copy_u8(const std::string& kernel, size_t m, size_t k, size_t k_padded,
                      const Flat<uint8_t>& src, size_t src_stride, int flip,
                      const Flat<uint8_t>& dst, size_t dst_stride, bool at_start) {
  const CopyU8KernelInfo& info = runnable(copy_u8_kernels(), kernel);
  if (k_padded < k) throw py::value_error("bad k_padded");
  expect(src, extent(m, k, src_stride));
  expect(dst, extent(m, k_padded, dst_stride));
  const Operand src_copy(src, at_start), dst_copy(dst, at_start);
  info.run({m, k, k_padded, src_copy.as<uint8_t>(), src_stride, static_cast<uint8_t>(flip),
            dst_copy.as<uint8_t>(), dst_stride});
  return copy_out(dst, dst_copy);
}

Flat<float> epilogue_f32(const std::string& kernel, size_t m, size_t n, const Flat<float>& acc,
                         size_t acc_stride, const Optional<float>& bias,
                         const Optional<float>& residual, size_t residual_stride, float min,
                         float max, const Flat<float>& dst, size_t dst_stride, bool at_start) {
  const EpilogueF32KernelInfo& info = runnable(epilogue_f32_kernels(), kernel);
  expect(acc, extent(m, n, acc_stride));
  expect(dst, extent(m, n, dst_stride));
  const Operand acc_copy(acc, at_start), dst_copy(dst, at_start), bias_copy(bias, n, at_start);
  const Operand residual_copy(residual, extent(m, n, residual_stride), at_start);
  EpilogueF32Params params = {};
  params.m = m, params.n = n;
  params.acc = acc_copy.as<float>(), params.acc_stride = acc_stride;
  params.bias = bias_copy.as<float>();
  params.residual = residual_copy.as<float>(), params.residual_stride = residual_stride;
  params.min = min, params.max = max;
  params.dst = dst_copy.as<float>(), params.dst_stride = dst_stride;
  info.run(params);
  return copy_out(dst, dst_copy);
}

Requantize requantize_of(const py::dict& values) {
  Requantize r;
  const auto read = [&](const char* key, auto* field) {
    using Field = std::remove_pointer_t<decltype(field)>;
    if (values.contains(key)) *field = values[key].cast<Field>();
  };
  read("zero_point", &r.zero_point), read("lo", &r.lo), read("hi", &r.hi);
  read("q_scale", &r.q_scale), read("r_scale", &r.r_scale), read("out_scale", &r.out_scale);
  read("r_zero_point", &r.r_zero_point), read("out_zero_point", &r.out_zero_point);
  read("out_lo", &r.out_lo), read("out_hi", &r.out_hi);
  return r;
}

py::array epilogue_s8(const std::string& kernel, size_t m, size_t n, const Flat<int32_t>& acc,
                      size_t acc_stride, const Optional<int32_t>& bias,
                      const Optional<float>& scale, const std::optional<py::array>& residual,
                      size_t residual_stride, const py::dict& requantize, float min, float max,
                      const py::array& dst, size_t dst_stride, bool at_start,
                      const Optional<int32_t>& row_zero_point, const Optional<int32_t>& column_sum,
                      const Optional<float>& row_scale, const Optional<float>& float_bias) {
  const EpilogueS8KernelInfo& info = runnable(epilogue_s8_kernels(), kernel);
  if (dst.itemsize() != (makes_bytes(info.kind) ? 1 : 4))
    throw py::value_error("dst has the wrong dtype");
  if (!scale && info.kind != EpilogueS8Kind::kS32) throw py::value_error("scale is missing");
  if (!residual && adds_bytes(info.kind)) throw py::value_error("residual is missing");
  expect(acc, extent(m, n, acc_stride));
  expect(dst, extent(m, n, dst_stride));
  if (residual) expect(*residual, extent(m, n, residual_stride));
  const Operand acc_copy(acc, at_start), dst_copy(dst, at_start);
  const Operand bias_copy(bias, n, at_start), scale_copy(scale, n, at_start);
  const Operand zero_point_copy(row_zero_point, m, at_start), sum_copy(column_sum, n, at_start);
  const Operand row_scale_copy(row_scale, m, at_start), float_bias_copy(float_bias, n, at_start);
  const Operand residual_copy(residual ? *residual : py::array(dst), at_start);
  EpilogueS8Params params = {};
  params.m = m, params.n = n;
  params.acc = acc_copy.as<int32_t>(), params.acc_stride = acc_stride;
  params.bias = bias_copy.as<int32_t>(), params.scale = scale_copy.as<float>();
  params.row_zero_point = zero_point_copy.as<int32_t>();
  params.column_sum = sum_copy.as<int32_t>();
  params.row_scale = row_scale_copy.as<float>(), params.float_bias = float_bias_copy.as<float>();
  params.residual = residual ? residual_copy.as<void>() : nullptr;
  params.residual_stride = residual_stride;
  params.r_signed = residual && residual->dtype().is(py::dtype::of<int8_t>());
  params.requantize = requantize_of(requantize);
  params.min = min, params.max = max;
  params.dst = dst_copy.as<void>(), params.dst_stride = dst_stride;
  info.run(params);
  return copy_out(dst, dst_copy);
}

struct PeakInfo {
  const char* name;
  Isa isa;
  size_t macs;
  PeakLoop run;
};
const PeakInfo kPeaks[] = {
#define LEPTON_PEAK(name, isa, macs) {#name, Isa::k_##isa, macs, LEPTON_KERNEL_POINTER(isa, name)},
#include "ops/peak_kernels.inc"
#undef LEPTON_PEAK
};
constexpr KernelList<PeakInfo> kPeakList = {kPeaks, sizeof kPeaks / sizeof kPeaks[0]};

// Multiply-accumulates that a call makes, by name; the loops of this machine.
std::vector<std::pair<std::string, size_t>> peaks() {
  std::vector<std::pair<std::string, size_t>> names;
  for (const PeakInfo& info : kPeakList)
    if (KernelList<PeakInfo>::is_runnable(info))
      names.emplace_back(info.name, info.macs * kPeakGroups);
  return names;
}

}  // namespace

void register_testing(py::module_& m) {
  py::module_ testing = m.def_submodule("testing", "Single microkernel calls on guarded operands.");
  using py::arg;
  testing.def("gemm_f32", &gemm_f32, arg("kernel"), arg("m"), arg("k"), arg("lhs"),
              arg("lhs_stride"), arg("panel"), arg("at_start"), arg("start") = py::none());
  testing.def("gemv_f32", &gemv_f32, arg("kernel"), arg("panels"), arg("k"), arg("lhs"), arg("rhs"),
              arg("at_start"));
  testing.def("gemm_bf16", &gemm_bf16, arg("kernel"), arg("m"), arg("panels"), arg("k"), arg("lhs"),
              arg("lhs_stride"), arg("rhs"), arg("at_start"));
  testing.def("gemm_bf16_pairs", &gemm_bf16_pairs, arg("kernel"), arg("m"), arg("k"), arg("lhs"),
              arg("lhs_stride"), arg("panel"), arg("at_start"), arg("start") = py::none());
  testing.def("unpack_bf16", &unpack_bf16, arg("kernel"), arg("k"), arg("panel"), arg("at_start"));
  testing.def("gemm_f32_fused", &gemm_f32_fused, arg("kernel"), arg("m"), arg("n"), arg("k"),
              arg("lhs"), arg("panel"), arg("bias"), arg("residual"), arg("clamp"), arg("dst"),
              arg("dst_stride"), arg("at_start"));
  testing.def("gemm_s8", &gemm_s8, arg("kernel"), arg("m"), arg("n"), arg("k"), arg("lhs"),
              arg("lhs_stride"), arg("panel"), arg("at_start"), arg("start") = py::none(),
              arg("hold_tiles") = true);
  testing.def("gemm_s8_fused", &gemm_s8_fused, arg("kernel"), arg("m"), arg("n"), arg("width"),
              arg("k"), arg("lhs"), arg("panel"), arg("bias"), arg("scale"), arg("requantize"),
              arg("dst"), arg("dst_stride"), arg("at_start"), arg("residual") = py::none(),
              arg("r_scale") = 1.f, arg("r_zero_point") = 0, arg("windows") = py::none());
  testing.def("copy_u8", &copy_u8, arg("kernel"), arg("m"), arg("k"), arg("k_padded"), arg("src"),
              arg("src_stride"), arg("flip"), arg("dst"), arg("dst_stride"), arg("at_start"));
  testing.def("peaks", &peaks);
  testing.def(
      "peak",
      [](const std::string& name, size_t iterations) { runnable(kPeakList, name).run(iterations); },
      arg("name"), arg("iterations"));
  testing.def("widen_s8", &widen_s8, arg("kernel"), arg("m"), arg("k"), arg("k_padded"), arg("src"),
              arg("src_stride"), arg("zero_point"), arg("dst"), arg("dst_stride"), arg("at_start"));
  testing.def("epilogue_f32", &epilogue_f32, arg("kernel"), arg("m"), arg("n"), arg("acc"),
              arg("acc_stride"), arg("bias"), arg("residual"), arg("residual_stride"), arg("min"),
              arg("max"), arg("dst"), arg("dst_stride"), arg("at_start"));
  testing.def("epilogue_s8", &epilogue_s8, arg("kernel"), arg("m"), arg("n"), arg("acc"),
              arg("acc_stride"), arg("bias"), arg("scale"), arg("residual"), arg("residual_stride"),
              arg("requantize"), arg("min"), arg("max"), arg("dst"), arg("dst_stride"),
              arg("at_start"), arg("row_zero_point") = py::none(), arg("column_sum") = py::none(),
              arg("row_scale") = py::none(), arg("float_bias") = py::none());
}

}  // namespace lepton
