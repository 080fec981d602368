// _core.testing: kernels of gemm_s8_sparse.h and gemm_f32_sparse.h on guarded copies, as testing.cc
// does for the others.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "bindings/guarded_buffer.h"
#include "ops/gemm_sparse.h"

namespace py = pybind11;

namespace lepton {
namespace {

template <typename T>
using Flat = py::array_t<T, py::array::c_style>;

// lhs ends with the last row's last value; dst [m][kGemmSparseColumns] starts as `start` where that
// is given.
Flat<int32_t> gemm_s8_sparse(const std::string& kernel, size_t m, const Flat<uint8_t>& lhs,
                             size_t lhs_stride, const Flat<uint32_t>& starts,
                             const Flat<uint16_t>& index, const Flat<int8_t>& values, bool at_start,
                             const std::optional<Flat<int32_t>>& start) {
  const GemmS8SparseKernelInfo* info = gemm_s8_sparse_kernels().find(kernel);
  if (info == nullptr) throw py::value_error("kernel '" + kernel + "' does not run here");
  const size_t quads = static_cast<size_t>(index.size()), nr = static_cast<size_t>(info->nr);
  if (m > static_cast<size_t>(info->mr)) throw py::value_error("bad m");
  if (static_cast<size_t>(values.size()) != quads * nr * 4) throw py::value_error("bad values");
  if (starts.size() < 1 || starts.data()[starts.size() - 1] != quads)
    throw py::value_error("bad starts");
  const size_t panels = static_cast<size_t>(starts.size()) - 1;
  if (panels * nr > kGemmSparseColumns) throw py::value_error("bad starts");
  Flat<int32_t> dst(static_cast<py::ssize_t>(m * kGemmSparseColumns));
  if (start) {
    if (start->size() != dst.size()) throw py::value_error("bad start");
    std::memcpy(dst.mutable_data(), start->data(), dst.nbytes());
  }
  const GuardedBuffer lhs_copy(lhs.data(), lhs.nbytes(), at_start);
  const GuardedBuffer start_copy(starts.data(), starts.nbytes(), at_start);
  const GuardedBuffer index_copy(index.data(), index.nbytes(), at_start);
  const GuardedBuffer value_copy(values.data(), values.nbytes(), at_start);
  const GuardedBuffer dst_copy(dst.data(), dst.nbytes(), at_start);
  info->run({m, panels, lhs_copy.as<uint8_t>(), lhs_stride, start_copy.as<uint32_t>(),
             index_copy.as<uint16_t>(), value_copy.as<int8_t>(), dst_copy.as<int32_t>(),
             start.has_value()});
  std::memcpy(dst.mutable_data(), dst_copy.as<int32_t>(), dst.nbytes());
  return dst;
}

// The same in float32.
Flat<float> gemm_f32_sparse(const std::string& kernel, size_t m, const Flat<float>& lhs,
                            size_t lhs_stride, const Flat<uint32_t>& starts,
                            const Flat<uint16_t>& index, const Flat<float>& values, bool at_start) {
  const GemmF32SparseKernelInfo* info = gemm_f32_sparse_kernels().find(kernel);
  if (info == nullptr) throw py::value_error("kernel '" + kernel + "' does not run here");
  const size_t rows = static_cast<size_t>(index.size()), nr = static_cast<size_t>(info->nr);
  if (m > static_cast<size_t>(info->mr)) throw py::value_error("bad m");
  if (static_cast<size_t>(values.size()) != rows * nr) throw py::value_error("bad values");
  if (starts.size() < 1 || starts.data()[starts.size() - 1] != rows)
    throw py::value_error("bad starts");
  const size_t panels = static_cast<size_t>(starts.size()) - 1;
  if (panels * nr > kGemmF32SparseColumns) throw py::value_error("bad starts");
  Flat<float> dst(static_cast<py::ssize_t>(m * kGemmF32SparseColumns));
  const GuardedBuffer lhs_copy(lhs.data(), lhs.nbytes(), at_start);
  const GuardedBuffer start_copy(starts.data(), starts.nbytes(), at_start);
  const GuardedBuffer index_copy(index.data(), index.nbytes(), at_start);
  const GuardedBuffer value_copy(values.data(), values.nbytes(), at_start);
  const GuardedBuffer dst_copy(dst.data(), dst.nbytes(), at_start);
  info->run({m, panels, lhs_copy.as<float>(), lhs_stride, start_copy.as<uint32_t>(),
             index_copy.as<uint16_t>(), value_copy.as<float>(), dst_copy.as<float>()});
  std::memcpy(dst.mutable_data(), dst_copy.as<float>(), dst.nbytes());
  return dst;
}

}  // namespace

void register_testing_sparse(py::module_& m) {
  py::module_ testing = m.attr("testing");
  using py::arg;
  testing.def("gemm_s8_sparse", &gemm_s8_sparse, arg("kernel"), arg("m"), arg("lhs"),
              arg("lhs_stride"), arg("starts"), arg("index"), arg("values"), arg("at_start"),
              arg("start") = py::none());
  testing.def("gemm_f32_sparse", &gemm_f32_sparse, arg("kernel"), arg("m"), arg("lhs"),
              arg("lhs_stride"), arg("starts"), arg("index"), arg("values"), arg("at_start"));
}

}  // namespace lepton
