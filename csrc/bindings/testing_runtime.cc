// _core.testing: parts of the runtime that have no effect of their own to observe from Python.
#include <pybind11/stl.h>

#include <tuple>

#include "bindings/bindings.h"
#include "runtime/checksum.h"
#include "runtime/memory.h"

namespace py = pybind11;

namespace lepton {
namespace {

uint64_t checksum(const py::bytes& data, uint64_t seed) {
  const std::string_view view = data;
  return xxh64(view.data(), view.size(), seed);
}

// Offsets of tensors alive from `first` to `last`, and the bytes that hold them all.
std::pair<size_t, std::vector<size_t>> offsets(
    const std::vector<std::tuple<int, int, size_t>>& tensors) {
  std::vector<Lifetime> lifetimes;
  for (const auto& [first, last, bytes] : tensors) lifetimes.push_back({first, last, bytes, 0});
  const size_t total = lay_out(lifetimes);
  std::vector<size_t> found;
  for (const Lifetime& t : lifetimes) found.push_back(t.offset);
  return {total, found};
}

}  // namespace

void register_testing_runtime(py::module_& m) {
  py::module_ testing = m.attr("testing");
  testing.def("xxh64", &checksum, py::arg("data"), py::arg("seed"));
  testing.def("lay_out", &offsets, py::arg("tensors"));
}

}  // namespace lepton
