// _core.testing: parts of the runtime that have no effect of their own to observe from Python.
#include <pybind11/stl.h>

#include <tuple>

#include "bindings/bindings.h"
#include "runtime/branches.h"
#include "runtime/checksum.h"
#include "runtime/memory.h"
#include "runtime/pace.h"

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

// Whether each of `runs` runs of step `step` uses the pool, when it takes so many nanoseconds with
// it and without; `woken` is what it takes with workers that have to be woken, once trials are
// over.
std::vector<bool> paces(int64_t with_pool, int64_t alone, int64_t woken, int runs, int step) {
  Pace pace(step);
  std::vector<bool> chosen;
  for (int i = 0; i < runs; ++i) {
    chosen.push_back(pace.parallel());
    const int64_t took = !pace.parallel() ? alone : pace.is_trial() ? with_pool : woken;
    if (pace.is_timed())
      pace.took(took);
    else
      pace.ran();
  }
  return chosen;
}

// Whether each of `runs` runs is side by side, whose time is `together`, else `apart`.
std::vector<bool> branch_paces(int64_t together, int64_t apart, int runs) {
  BranchPace pace;
  std::vector<bool> chosen;
  for (int i = 0; i < runs; ++i) {
    chosen.push_back(pace.side_by_side());
    if (pace.is_timed())
      pace.took(chosen.back() ? together : apart);
    else
      pace.ran();
  }
  return chosen;
}

// First step and the chain of each step of the stretches found among steps (reads, writes).
std::vector<std::pair<size_t, std::vector<size_t>>> branches(
    const std::vector<std::pair<std::vector<int>, std::vector<int>>>& steps) {
  std::vector<StepAccess> accesses;
  for (const auto& [reads, writes] : steps) accesses.push_back({reads, writes});
  std::vector<std::pair<size_t, std::vector<size_t>>> found;
  for (const Branches& made : find_branches(accesses)) found.push_back({made.first, made.chain});
  return found;
}

// The thread that takes each chain.
std::vector<size_t> shares(const std::vector<int64_t>& nanoseconds, size_t threads) {
  Branches made;
  made.chains = nanoseconds.size();
  made.prepare(threads);
  made.nanoseconds = nanoseconds;
  made.divide();
  return made.share;
}

}  // namespace

void register_testing_runtime(py::module_& m) {
  py::module_ testing = m.attr("testing");
  testing.def("xxh64", &checksum, py::arg("data"), py::arg("seed"));
  testing.def("paces", &paces, py::arg("with_pool"), py::arg("alone"), py::arg("woken"),
              py::arg("runs"), py::arg("step") = 0);
  testing.def("branch_paces", &branch_paces, py::arg("together"), py::arg("apart"),
              py::arg("runs"));
  testing.def("branches", &branches, py::arg("steps"));
  testing.def("shares", &shares, py::arg("nanoseconds"), py::arg("threads"));
  testing.def("lay_out", &offsets, py::arg("tensors"));
}

}  // namespace lepton
