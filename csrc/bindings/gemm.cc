// Kernel lists and packers for Python: what `lower` needs to choose a kernel and pack its weights.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "ops/gather_kernels.h"
#include "ops/gemm.h"
#include "ops/gemm_bf16_kernels.h"
#include "ops/gemm_lhs.h"
#include "ops/gemm_nbits_kernels.h"
#include "ops/gemm_runs.h"
#include "ops/gemm_sparse.h"
#include "ops/lstm_step_kernels.h"
#include "ops/op.h"
#include "ops/window_kernels.h"
#include "ops/winograd_kernels.h"

namespace py = pybind11;

namespace lepton {
namespace {

template <typename Info>
py::dict describe_line(const char* family, const Info& info) {
  py::dict line;
  line["family"] = family;
  line["name"] = info.name;
  line["isa"] = name_of(info.isa);
  line["mr"] = 0;
  line["nr"] = 0;
  line["kr"] = 0;
  line["kind"] = "";
  line["available"] = KernelList<Info>::is_runnable(info);
  return line;
}

const char* name_of(EpilogueS8Kind kind) {
  switch (kind) {
    case EpilogueS8Kind::kRequantize: return "requantize";
    case EpilogueS8Kind::kRequantizeAdd: return "requantize_add";
    case EpilogueS8Kind::kRequantizeSum: return "requantize_sum";
    case EpilogueS8Kind::kF32: return "f32";
    default: return "s32";
  }
}

const char* name_of(GemmS8Form form) {
  switch (form) {
    case GemmS8Form::kI16: return "i16";
    case GemmS8Form::kU8: return "u8";
    case GemmS8Form::kU8Pairs: return "u8 pairs";
    default: return "u8 runs";
  }
}

const char* name_of(PoolKind kind) {
  switch (kind) {
    case PoolKind::kMaxF32: return "max_f32";
    case PoolKind::kMaxU8: return "max_u8";
    case PoolKind::kMaxS8: return "max_s8";
    case PoolKind::kAverageF32: return "average_f32";
    case PoolKind::kSumU8: return "sum_u8";
    default: return "sum_s8";
  }
}

py::list kernels() {
  py::list lines;
  for (const auto& info : gemm_f32_kernels()) {
    py::dict line = describe_line("gemm_f32", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = 1;
    lines.append(line);
  }
  for (const auto& info : gemm_s8_kernels()) {
    py::dict line = describe_line("gemm_s8", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["nv"] = info.nv, line["kr"] = info.kr;
    line["form"] = name_of(info.form);
    lines.append(line);
  }
  for (const auto& info : gemm_s8_windows_kernels()) {
    py::dict line = describe_line("gemm_s8_windows", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = 4;
    lines.append(line);
  }
  for (const auto& info : gemv_f32_kernels()) {
    py::dict line = describe_line("gemv_f32", info);
    line["mr"] = info.panels, line["nr"] = info.nr, line["kr"] = 1;
    lines.append(line);
  }
  for (const auto& info : gemm_bf16_kernels()) {
    py::dict line = describe_line("gemm_bf16", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = info.kr;
    line["panels"] = info.panels, line["pairs_mr"] = info.pairs_mr;
    lines.append(line);
  }
  for (const auto& info : gemm_f32_fused_kernels()) {
    py::dict line = describe_line("gemm_f32_fused", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = 1;
    lines.append(line);
  }
  for (const auto& info : gemm_s8_fused_kernels()) {
    py::dict line = describe_line("gemm_s8_fused", info);
    line["adds"] = info.adds, line["windows"] = info.windows;
    line["form"] = name_of(info.form);
    line["nr"] = info.nr;
    lines.append(line);
  }
  for (const auto& info : lstm_step_kernels()) {
    py::dict line = describe_line("lstm_step", info);
    line["form"] = name_of(info.form);
    line["mr"] = 1, line["nr"] = info.nr, line["kr"] = 4;
    lines.append(line);
  }
  for (const auto& info : gemm_s8_sparse_kernels()) {
    py::dict line = describe_line("gemm_s8_sparse", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = 4;
    lines.append(line);
  }
  for (const auto& info : gemm_f32_sparse_kernels()) {
    py::dict line = describe_line("gemm_f32_sparse", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = 1;
    lines.append(line);
  }
  for (const auto& info : gemm_f32lut4_kernels()) {
    py::dict line = describe_line("gemm_f32lut4", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = info.kr;
    lines.append(line);
  }
  for (const auto& info : gemm_f32s8_kernels()) {
    py::dict line = describe_line("gemm_f32s8", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = info.kr;
    lines.append(line);
  }
  for (const auto& info : gemm_s8u4_kernels()) {
    py::dict line = describe_line("gemm_s8u4", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = info.kr;
    lines.append(line);
  }
  for (const auto& info : gemm_s8lut4_kernels()) {
    py::dict line = describe_line("gemm_s8lut4", info);
    line["mr"] = info.mr, line["nr"] = info.nr, line["kr"] = info.kr;
    lines.append(line);
  }
  for (const auto& info : split_row_kernels()) lines.append(describe_line("split_row", info));
  for (const auto& info : epilogue_f32_kernels()) lines.append(describe_line("epilogue_f32", info));
  for (const auto& info : epilogue_s8_kernels()) {
    py::dict line = describe_line("epilogue_s8", info);
    line["kind"] = name_of(info.kind);
    lines.append(line);
  }
  for (const auto& info : depthwise_f32_kernels())
    lines.append(describe_line("depthwise_f32", info));
  for (const auto& info : depthwise_quads_kernels())
    lines.append(describe_line("depthwise_s8_quads", info));
  for (const auto& info : depthwise_s8_kernels()) lines.append(describe_line("depthwise_s8", info));
  for (const auto& info : pool_kernels()) {
    py::dict line = describe_line("pool", info);
    line["kind"] = name_of(info.kind);
    lines.append(line);
  }
  for (const auto& info : winograd_f32_kernels()) {
    py::dict line = describe_line("winograd_f32", info);
    line["nr"] = info.lanes;
    lines.append(line);
  }
  for (const auto& info : widen_s8_kernels()) lines.append(describe_line("widen_s8", info));
  for (const auto& info : copy_u8_kernels()) lines.append(describe_line("copy_u8", info));
  for (const auto& info : gather_rows_kernels()) lines.append(describe_line("gather_rows", info));
  return lines;
}

std::string select_kernel(const std::string& family, const std::string& isa) {
  Isa max;
  if (!isa_from_name(isa, &max)) throw py::value_error("unknown instruction set '" + isa + "'");
  if (family == "gemm_f32") return gemm_f32_kernels().select(max)->name;
  if (family == "gemm_bf16") return gemm_bf16_kernels().select(max)->name;
  if (family == "gemm_s8_sparse") return gemm_s8_sparse_kernels().select(max)->name;
  if (family == "gemm_f32_sparse") return gemm_f32_sparse_kernels().select(max)->name;
  if (family == "gemm_f32lut4") return gemm_f32lut4_kernels().select(max)->name;
  if (family == "gemm_f32s8") return gemm_f32s8_kernels().select(max)->name;
  if (family == "gemm_s8u4") return gemm_s8u4_kernels().select(max)->name;
  if (family == "gemm_s8lut4") return gemm_s8lut4_kernels().select(max)->name;
  if (family == "gemm_s8") return gemm_s8_kernels().select(max)->name;
  if (family == "depthwise_f32") return depthwise_f32_kernels().select(max)->name;
  if (family == "depthwise_s8") return depthwise_s8_kernels().select(max)->name;
  throw py::value_error("kernel family '" + family + "' is not selected by name");
}

template <typename Info>
const Info& described(KernelList<Info> list, const std::string& kernel) {
  const Info* info = list.describe(kernel);
  if (info == nullptr) throw py::value_error("unknown kernel '" + kernel + "'");
  return *info;
}

// A stack of matrices [..., k, n] in C order.
struct Stack {
  explicit Stack(const py::array& b) : array(py::array::ensure(b, py::array::c_style)) {
    if (!array || array.ndim() < 2) throw py::value_error("a packed operand has shape [..., k, n]");
    k = array.shape(array.ndim() - 2);
    n = array.shape(array.ndim() - 1);
    for (py::ssize_t i = 0; i < array.ndim() - 2; ++i) count *= array.shape(i);
  }
  // Room for `count` packed matrices of `bytes` each.
  py::array_t<uint8_t> make_packed(size_t bytes) const {
    if (bytes != 0 && count > static_cast<size_t>(kMaxElements) / bytes)
      throw py::value_error("packed operand is too large");
    return aligned_bytes(bytes * count);
  }

  py::array array;
  int64_t k, n;
  size_t count = 1;
};

py::array_t<uint8_t> pack_f32(const std::string& kernel, const py::array& b) {
  const GemmF32KernelInfo& info = described(gemm_f32_kernels(), kernel);
  if (!b.dtype().is(py::dtype::of<float>())) throw py::type_error("b must be float32");
  const Stack stack(b);
  size_t bytes = 0;
  raise_if_error(gemm_packed_size(info, stack.k, stack.n, &bytes));
  py::array_t<uint8_t> packed = stack.make_packed(bytes);
  PackGemmF32 args = {};
  args.k = stack.k, args.n = args.row_stride = stack.n, args.column_stride = 1;
  const auto* b_data = static_cast<const float*>(stack.array.data());
  uint8_t* out = packed.mutable_data();
  const py::gil_scoped_release release;
  for (size_t i = 0; i < stack.count; ++i) {
    args.b = b_data + i * args.k * args.n;
    args.packed = reinterpret_cast<float*>(out + i * bytes);
    pack_gemm_f32(info, args, 0, gemm_panels(info, args.n));
  }
  return packed;
}

py::array_t<uint8_t> pack_bf16(const std::string& kernel, const py::array& b) {
  const GemmBf16KernelInfo& info = described(gemm_bf16_kernels(), kernel);
  if (!b.dtype().is(py::dtype::of<float>())) throw py::type_error("b must be float32");
  const Stack stack(b);
  size_t bytes = 0;
  raise_if_error(gemm_packed_size(info, stack.k, stack.n, &bytes));
  py::array_t<uint8_t> packed = stack.make_packed(bytes);
  const size_t k = stack.k, n = stack.n;
  const auto* b_data = static_cast<const float*>(stack.array.data());
  uint8_t* out = packed.mutable_data();
  const py::gil_scoped_release release;
  for (size_t i = 0; i < stack.count; ++i)
    pack_gemm_bf16(info, k, n, b_data + i * k * n, reinterpret_cast<uint16_t*>(out + i * bytes));
  return packed;
}

// A stack of 8-bit matrices with zero points: 1, n or batch · n of them.
class Stack8 {
 public:
  Stack8(const py::array& b, const std::optional<py::array>& zero_points) : stack_(b) {
    args_.b_signed = b.dtype().is(py::dtype::of<int8_t>());
    if (!args_.b_signed && !b.dtype().is(py::dtype::of<uint8_t>()))
      throw py::type_error("b must be uint8 or int8");
    args_.k = stack_.k, args_.n = args_.row_stride = stack_.n, args_.column_stride = 1;
    if (!zero_points) return;
    points_ = py::array::ensure(*zero_points, py::array::c_style);
    if (!points_->dtype().is(b.dtype())) throw py::type_error("zero_points must have b's dtype");
    const size_t size = points_->size();
    if (size != 1 && size != args_.n && size != args_.n * stack_.count)
      throw py::value_error("zero_points must hold 1, n or batch * n entries");
    args_.zero_point_stride = size == 1 ? 0 : 1;
    points_per_matrix_ = size == 1 || size == args_.n ? 0 : args_.n;
  }

  const Stack& stack() const { return stack_; }
  // What packing matrix i reads. Touches no Python.
  PackGemmS8 matrix(size_t i) const {
    PackGemmS8 args = args_;
    args.b = static_cast<const uint8_t*>(stack_.array.data()) + i * args.k * args.n;
    if (points_)
      args.zero_points = static_cast<const uint8_t*>(points_->data()) + i * points_per_matrix_;
    return args;
  }

 private:
  Stack stack_;
  std::optional<py::array> points_;
  size_t points_per_matrix_ = 0;
  PackGemmS8 args_ = {};
};

int checked_bound(int bound) {
  if (bound < 1 || bound > 255) throw py::value_error("bound must be in [1, 255]");
  return bound;
}

// Above this many instructions per quad, widening to int16 is as fast.
constexpr double kRunsPay = 4.0;

bool pairs_fit_all(const Stack8& stack, int bound) {
  for (size_t i = 0; i < stack.stack().count; ++i)
    if (!pairs_fit(stack.matrix(i), bound)) return false;
  return true;
}

// The preferred kernel of a form that leaves no tiles empty, with panels of its own.
const GemmS8KernelInfo& without_tiles(Isa max, GemmS8Form form) {
  for (const GemmS8KernelInfo& info : gemm_s8_kernels())
    if (info.hold_tiles == nullptr && info.form == form && is_within(info.isa, max)) return info;
  throw py::value_error("no kernel without tiles");
}

int lstm_step_units(const std::string& kernel, const std::string& isa) {
  Isa max;
  if (!isa_from_name(isa, &max)) throw py::value_error("unknown instruction set '" + isa + "'");
  const GemmS8KernelInfo* const gemm = gemm_s8_kernels().describe(kernel);
  if (gemm == nullptr) throw py::value_error("unknown kernel '" + kernel + "'");
  const LstmStepKernelInfo* const step = find_lstm_step(*gemm, max);
  return step == nullptr ? 0 : static_cast<int>(step->units());
}

std::string choose_gemm_s8(const std::string& isa, const py::array& b,
                           const std::optional<py::array>& zero_points, int bound, bool few_rows) {
  Isa max;
  if (!isa_from_name(isa, &max)) throw py::value_error("unknown instruction set '" + isa + "'");
  const Stack8 stack(b, zero_points);
  checked_bound(bound);
  const py::gil_scoped_release release;
  const size_t matrices = stack.stack().count;
  bool fits = true;
  for (size_t i = 0; i < matrices && fits; ++i) fits = fits_s8(stack.matrix(i));
  const GemmS8KernelInfo& preferred = select_gemm_s8(max, fits, true, true);
  if (few_rows && preferred.hold_tiles != nullptr) return without_tiles(max, preferred.form).name;
  if (preferred.form == GemmS8Form::kU8 || preferred.form == GemmS8Form::kI16)
    return select_gemm_s8(max, fits, false, false).name;
  if (few_rows && pairs_fit_all(stack, bound)) return select_gemm_s8(max, fits, true, false).name;
  const bool shallow = stack.matrix(0).k <= kMaxRunDepth && matrices > 0;
  const bool runs = shallow && sample_gemm_runs(stack.matrix(0), bound).cost() < kRunsPay;
  return select_gemm_s8(max, fits, false, runs).name;
}

py::array_t<uint8_t> pack_dense(const GemmS8KernelInfo& info, const Stack8& stack) {
  size_t bytes = 0;
  raise_if_error(gemm_packed_size(info, stack.stack().k, stack.stack().n, &bytes));
  py::array_t<uint8_t> packed = stack.stack().make_packed(bytes);
  std::byte* const out = reinterpret_cast<std::byte*>(packed.mutable_data());
  const py::gil_scoped_release release;
  for (size_t i = 0; i < stack.stack().count; ++i) {
    PackGemmS8 args = stack.matrix(i);
    args.packed = out + i * bytes;
    pack_gemm_s8(info, args, 0, gemm_panels(info, args.n));
  }
  return packed;
}

py::array_t<uint8_t> pack_runs(const GemmS8KernelInfo& info, const Stack8& stack, int bound,
                               size_t stride) {
  if (static_cast<size_t>(stack.stack().k) > kMaxRunDepth)
    throw py::value_error("too many rows for " + std::string(info.name));
  PackedRuns runs(info, checked_bound(bound));
  {
    const py::gil_scoped_release release;
    for (size_t i = 0; i < stack.stack().count; ++i) runs.add(stack.matrix(i));
  }
  if (stride == 0) stride = runs.panel_stride();
  if (stride < runs.panel_stride() || stride % kCacheLine != 0)
    throw py::value_error("stride is too short or not a multiple of a cache line");
  py::array_t<uint8_t> packed = aligned_bytes(stride * runs.panels());
  runs.store(stride, reinterpret_cast<std::byte*>(packed.mutable_data()));
  return packed;
}

py::array_t<uint8_t> pack_s8(const std::string& kernel, const py::array& b,
                             const std::optional<py::array>& zero_points, int bound,
                             size_t stride) {
  const GemmS8KernelInfo& info = described(gemm_s8_kernels(), kernel);
  const Stack8 stack(b, zero_points);
  for (size_t i = 0; i < stack.stack().count && reads_u8(info.form); ++i)
    if (!fits_s8(stack.matrix(i)))
      throw py::value_error(kernel + " holds int8 values, and b minus its zero points is no int8");
  if (info.form == GemmS8Form::kU8Pairs && !pairs_fit_all(stack, checked_bound(bound)))
    throw py::value_error("pairs of b could leave 16 bits, which " + kernel + " sums in");
  return info.form == GemmS8Form::kU8Runs ? pack_runs(info, stack, bound, stride)
                                          : pack_dense(info, stack);
}

// How the quads of an operand packed in runs are shared out.
py::dict run_statistics(const std::string& kernel, int64_t k, int64_t n, size_t matrices,
                        const py::array_t<uint8_t, py::array::c_style>& packed) {
  const GemmS8KernelInfo& info = described(gemm_s8_kernels(), kernel);
  const auto* const start = reinterpret_cast<const std::byte*>(packed.data());
  GemmS8Layout layout;
  raise_if_error(
      check_packed_s8(info, k, n, matrices, start, static_cast<size_t>(packed.size()), &layout));
  RunStatistics statistics;
  const size_t columns = static_cast<size_t>(n), panels = gemm_panels(info, columns);
  for (size_t i = 0; i < matrices * panels && info.form == GemmS8Form::kU8Runs; ++i) {
    const std::byte* const matrix = start + i / panels * layout.matrix_bytes;
    const GemmS8Panel panel = gemm_s8_panel(info, columns, matrix, layout.panel_stride, i % panels);
    const size_t room =
        layout.panel_stride -
        static_cast<size_t>(panel.values - reinterpret_cast<const std::byte*>(panel.sums));
    raise_if_error(
        check_gemm_runs(panel.values, room, panel.width, static_cast<size_t>(k), &statistics));
  }
  py::dict counts;
  counts["dense"] = statistics.dense;
  counts["runs4"] = statistics.in_runs4;
  counts["runs2"] = statistics.in_runs2;
  counts["runs1"] = statistics.in_runs1;
  return counts;
}

py::array_t<uint8_t> pack_depthwise(const py::array_t<int16_t, py::array::c_style>& w) {
  if (w.ndim() != 2) throw py::value_error("depthwise weights have shape [taps, channels]");
  const size_t taps = w.shape(0), channels = w.shape(1);
  py::array_t<uint8_t> packed(
      static_cast<py::ssize_t>(depthwise_s8_packed_size(channels, taps) * sizeof(int16_t)));
  pack_depthwise_s8(w.data(), channels, taps, reinterpret_cast<int16_t*>(packed.mutable_data()));
  return packed;
}

}  // namespace

void register_gemm(py::module_& m) {
  m.def(
      "kernels", &kernels,
      "Every line of the kernel lists: dicts with family, name, isa, mr, nr, kr, kind, available.");
  m.def("select_kernel", &select_kernel, py::arg("family"), py::arg("isa"),
        "Name of the kernel preferred for a target capped at isa, which need not be this machine. "
        "Raises ValueError for an unknown family or isa.");
  m.def("pack_gemm_f32", &pack_f32, py::arg("kernel"), py::arg("b"),
        "Packs float32 b [..., k, n] for a gemm_f32 kernel; returns the bytes as uint8 [size].");
  m.def("pack_gemm_bf16", &pack_bf16, py::arg("kernel"), py::arg("b"),
        "Packs float32 b [..., k, n], rounded to bfloat16 (to nearest, ties to even), for a "
        "gemm_bf16 kernel; returns the bytes as uint8 [size].");
  m.def("choose_gemm_s8", &choose_gemm_s8, py::arg("isa"), py::arg("b"),
        py::arg("zero_points") = py::none(), py::arg("bound") = 255, py::arg("few_rows") = false,
        "Name of the gemm_s8 kernel preferred for a target capped at isa and for this constant b "
        "(operands as for pack_gemm_s8): not every kernel can hold every value of b minus its zero "
        "points, and for one that sums runs of products in 16 bits it depends on them whether it "
        "pays. few_rows: the other operand mostly has one to three.");
  m.def("lstm_step_units", &lstm_step_units, py::arg("kernel"), py::arg("isa"),
        "Units whose gates i, o, f and g fill a panel of a gemm_s8 kernel where R is packed for "
        "a kernel that computes an LSTM's whole step on a target capped at isa; 0: there is none.");
  m.def("pack_gemm_s8", &pack_s8, py::arg("kernel"), py::arg("b"),
        py::arg("zero_points") = py::none(), py::arg("bound") = 255, py::arg("stride") = 0,
        "Packs uint8 or int8 b [..., k, n] minus its zero points (b's dtype; 1, n or batch * n "
        "entries) for a gemm_s8 kernel; returns the bytes as uint8 [size]. bound: the largest "
        "value of the other operand, as uint8 (int8 values count 128 more). stride: for kernels of "
        "form u8 runs, bytes from one panel to the next; 0: as many as the longest needs. Raises "
        "ValueError when the kernel cannot hold a difference (see choose_gemm_s8).");
  m.def("gemm_run_statistics", &run_statistics, py::arg("kernel"), py::arg("k"), py::arg("n"),
        py::arg("matrices"), py::arg("packed"),
        "Of an operand packed in runs: quads of the matrices (dense), and those in runs of four, "
        "two and one, where a split quad counts twice and one of zeros not at all.");
  m.def("pack_depthwise_s8", &pack_depthwise, py::arg("w"),
        "Packs int16 w [taps, channels], zero points already subtracted, for the depthwise_s8 "
        "kernels; returns the bytes as uint8 [size]. The depthwise_f32 kernels take w as it is.");
}

}  // namespace lepton
