// _core.testing: kernels of gemm_nbits.h, gemm_s8u4.h and split_rows.h on guarded copies, as
// testing.cc does for the others.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "bindings/guarded_buffer.h"
#include "ops/gemm_nbits_kernels.h"

namespace py = pybind11;

namespace lepton {
namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Bytes = py::array_t<int8_t, py::array::c_style>;
using Ints = py::array_t<int32_t, py::array::c_style>;

const GemmNBitsKernelInfo& runnable(const std::string& kernel) {
  for (const auto list : {gemm_f32lut4_kernels(), gemm_f32s8_kernels()})
    if (const GemmNBitsKernelInfo* info = list.find(kernel)) return *info;
  throw py::value_error("kernel '" + kernel + "' does not run here");
}

std::unique_ptr<GuardedBuffer> guarded(const std::optional<py::array>& array, bool at_start) {
  if (!array) return nullptr;
  return std::make_unique<GuardedBuffer>(array->data(), array->nbytes(), at_start);
}

template <typename T>
const T* pointer(const std::unique_ptr<GuardedBuffer>& buffer) {
  return buffer ? buffer->as<T>() : nullptr;
}

// weights: the records of one panel, exactly; lhs, lhs_sum, zero and table as the contract has
// them.
Floats gemm_nbits(const std::string& kernel, size_t m, size_t k, size_t group, const Floats& lhs,
                  size_t lhs_stride, const std::optional<Floats>& lhs_sum, size_t sum_stride,
                  const std::optional<Bytes>& zero, const py::array& weights,
                  const std::optional<Floats>& table, bool at_start) {
  const GemmNBitsKernelInfo& info = runnable(kernel);
  if (m < 1 || m > static_cast<size_t>(info.mr)) throw py::value_error("bad m");
  if (group == 0 || k % info.kr != 0 || group % info.kr != 0) throw py::value_error("bad k");
  const auto lhs_copy = guarded(lhs, at_start), sum_copy = guarded(lhs_sum, at_start);
  const auto zero_copy = guarded(zero, at_start), weight_copy = guarded(weights, at_start);
  const auto table_copy = guarded(table, at_start);
  Floats dst(static_cast<py::ssize_t>(info.mr * info.nr));
  std::memset(dst.mutable_data(), 0, dst.nbytes());
  const auto dst_copy = guarded(dst, at_start);
  info.run({m, k, group, pointer<float>(lhs_copy), lhs_stride, pointer<float>(sum_copy), sum_stride,
            pointer<int8_t>(zero_copy), pointer<uint8_t>(weight_copy), pointer<float>(table_copy),
            dst_copy->as<float>()});
  std::memcpy(dst.mutable_data(), dst_copy->as<float>(), dst.nbytes());
  return dst;
}

const GemmS8U4KernelInfo& runnable_s8u4(const std::string& kernel) {
  for (const auto list : {gemm_s8u4_kernels(), gemm_s8lut4_kernels()})
    if (const GemmS8U4KernelInfo* info = list.find(kernel)) return *info;
  throw py::value_error("kernel '" + kernel + "' does not run here");
}

// weights: `panels` panels, panel_stride bytes apart, from the records of the first on; zero as far
// apart.
Floats gemm_s8u4(const std::string& kernel, size_t m, size_t digits, size_t k, size_t group,
                 size_t panels, size_t panel_stride, const Bytes& lhs, const Ints& start,
                 const Floats& lhs_scale, const std::optional<Floats>& lhs_sum,
                 const std::optional<Bytes>& zero, const py::array& weights,
                 const std::optional<py::array>& table, bool at_start) {
  const GemmS8U4KernelInfo& info = runnable_s8u4(kernel);
  if (m < 1 || m > static_cast<size_t>(info.mr)) throw py::value_error("bad m");
  if (panels < 1 || panels > kPanelsS8U4 || (digits != 1 && digits != 3))
    throw py::value_error("bad panels or digits");
  if (group == 0 || k % info.kr != 0 || group % info.kr != 0) throw py::value_error("bad k");
  const auto lhs_copy = guarded(lhs, at_start), start_copy = guarded(start, at_start);
  const auto scale_copy = guarded(lhs_scale, at_start), sum_copy = guarded(lhs_sum, at_start);
  const auto zero_copy = guarded(zero, at_start), weight_copy = guarded(weights, at_start);
  const auto table_copy = guarded(table, at_start);
  Floats dst(static_cast<py::ssize_t>(static_cast<size_t>(info.mr * info.nr) * kPanelsS8U4));
  std::memset(dst.mutable_data(), 0, dst.nbytes());
  const auto dst_copy = guarded(dst, at_start);
  info.run({m, digits, k, group, panels, panel_stride, pointer<int8_t>(lhs_copy),
            pointer<int32_t>(start_copy), pointer<float>(scale_copy), pointer<float>(sum_copy),
            pointer<int8_t>(zero_copy), pointer<uint8_t>(weight_copy), pointer<uint8_t>(table_copy),
            dst_copy->as<float>()});
  std::memcpy(dst.mutable_data(), dst_copy->as<float>(), dst.nbytes());
  return dst;
}

// One row alone: digits [k_padded/8, digits, 8], start [groups, digits], scale and sum [groups],
// and whether all was finite.
py::tuple split_row(const std::string& kernel, size_t digits, size_t group, size_t padded_group,
                    int32_t offset, const Floats& x, bool at_start) {
  const SplitRowKernelInfo* info = split_row_kernels().find(kernel);
  if (info == nullptr) throw py::value_error("kernel '" + kernel + "' does not run here");
  if (digits != 1 && digits != 3) throw py::value_error("bad digits");
  const size_t k = static_cast<size_t>(x.size());
  if (group == 0 || k == 0 || padded_group < group) throw py::value_error("bad group");
  const GemmNBitsLayout layout = gemm_nbits_layout(16, 8, k, group, 4, false);
  if (layout.groups > 1 && layout.padded_group != padded_group) throw py::value_error("bad group");
  const auto groups = static_cast<py::ssize_t>(layout.groups);
  const auto count = static_cast<py::ssize_t>(digits);
  Bytes dst({static_cast<py::ssize_t>(layout.k_padded / 8), count, py::ssize_t{8}});
  Ints start({groups, count});
  Floats scale(groups), sum(groups);
  const auto x_copy = guarded(x, at_start), dst_copy = guarded(dst, at_start);
  const bool finite = info->run({digits, k, group, padded_group, pointer<float>(x_copy),
                                 dst_copy->as<int8_t>(), digits * 8, offset, start.mutable_data(),
                                 digits, scale.mutable_data(), sum.mutable_data(), 1});
  std::memcpy(dst.mutable_data(), dst_copy->as<int8_t>(), dst.nbytes());
  return py::make_tuple(dst, start, scale, sum, finite);
}

// Reads `data` whole, for the bandwidth of memory: eight streams, each asked for 1 KB ahead, which
// is as fast as any loop measured (docs/performance.md). Returns something that depends on all of
// it.
uint64_t read_memory(const py::array_t<uint64_t, py::array::c_style>& data) {
  constexpr size_t kStreams = 8, kLine = 8, kAhead = 128;
  const uint64_t* const words = data.data();
  const size_t stream = static_cast<size_t>(data.size()) / kStreams / kLine * kLine;
  const py::gil_scoped_release unlocked;
  uint64_t sum[kLine] = {};
  for (size_t i = 0; i < stream; i += kLine) {
    for (size_t s = 0; s < kStreams; ++s) {
      const uint64_t* const line = words + s * stream + i;
      __builtin_prefetch(line + kAhead);
      for (size_t j = 0; j < kLine; ++j) sum[j] ^= line[j];
    }
  }
  uint64_t all = 0;
  for (const uint64_t part : sum) all ^= part;
  return all;
}

}  // namespace

void register_testing_nbits(py::module_& m) {
  py::module_ testing = m.attr("testing");
  using py::arg;
  testing.def("gemm_nbits", &gemm_nbits, arg("kernel"), arg("m"), arg("k"), arg("group"),
              arg("lhs"), arg("lhs_stride"), arg("lhs_sum"), arg("sum_stride"), arg("zero"),
              arg("weights"), arg("table"), arg("at_start"));
  testing.def("gemm_s8u4", &gemm_s8u4, arg("kernel"), arg("m"), arg("digits"), arg("k"),
              arg("group"), arg("panels"), arg("panel_stride"), arg("lhs"), arg("start"),
              arg("lhs_scale"), arg("lhs_sum"), arg("zero"), arg("weights"), arg("table"),
              arg("at_start"));
  testing.def("read_memory", &read_memory, arg("data"));
  testing.def("split_row", &split_row, arg("kernel"), arg("digits"), arg("group"),
              arg("padded_group"), arg("offset"), arg("x"), arg("at_start"));
}

}  // namespace lepton
