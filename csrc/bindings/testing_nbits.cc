// _core.testing: kernels of gemm_nbits.h on guarded copies, as testing.cc does for the others.
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

}  // namespace

void register_testing_nbits(py::module_& m) {
  py::module_ testing = m.attr("testing");
  using py::arg;
  testing.def("gemm_nbits", &gemm_nbits, arg("kernel"), arg("m"), arg("k"), arg("group"),
              arg("lhs"), arg("lhs_stride"), arg("lhs_sum"), arg("sum_stride"), arg("zero"),
              arg("weights"), arg("table"), arg("at_start"));
}

}  // namespace lepton
