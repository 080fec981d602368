// What an executor's binding keeps alive for its plan, and numpy's view of dtypes and shapes.
#pragma once

#include <pybind11/numpy.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "runtime/memory.h"
#include "runtime/plan.h"

namespace py = pybind11;

namespace lepton {

// Kept for ever: making one from its name takes longer than a small step.
inline const py::dtype& numpy_dtype(DType t) {
  static auto* const known = new std::array<py::object, kLastDType + 1>;
  py::object& found = (*known)[static_cast<size_t>(t)];
  if (!found) found = py::dtype(std::string(name_of(t)));
  return static_cast<const py::dtype&>(found);
}

// A read-only numpy view of a tensor that lives as long as the call.
inline py::array view_of(const TensorInfo& t) {
  std::vector<py::ssize_t> dims(t.shape.begin(), t.shape.end());
  py::array view(numpy_dtype(t.dtype), dims, t.data, py::none());
  view.attr("setflags")(py::arg("write") = false);
  return view;
}

inline Shape shape_of(const py::array& a) {
  Shape s;
  for (py::ssize_t i = 0; i < a.ndim() && i < kMaxRank; ++i) s.push_back(a.shape(i));
  return s;
}

// Keeps 64-byte aligned bytes as they are, and a copy of the others (unless nothing will run).
class BlobStore {
 public:
  BlobStore(const py::list& arrays, bool to_run) {
    for (const py::handle& item : arrays) {
      auto array = py::array::ensure(py::reinterpret_borrow<py::object>(item), py::array::c_style);
      if (!array) throw py::error_already_set();
      const auto* data = static_cast<const std::byte*>(array.data());
      const auto size = static_cast<size_t>(array.nbytes());
      if (to_run && reinterpret_cast<uintptr_t>(data) % 64 != 0) {
        copies_.emplace_back();
        raise_if_error(copies_.back().reserve(size == 0 ? 1 : size));
        if (size != 0) std::memcpy(copies_.back().data(), data, size);
        data = copies_.back().data();
      } else {
        kept_.push_back(std::move(array));
      }
      blobs_.push_back({data, size});
    }
  }
  const std::vector<Blob>& blobs() const { return blobs_; }

 private:
  std::vector<Blob> blobs_;
  std::vector<py::array> kept_;
  std::vector<Buffer> copies_;
};

// A parsed plan with the bytes it points into.
struct LoadedPlan {
  Buffer meta;
  BlobStore store;
  std::unique_ptr<Plan> plan;

  LoadedPlan(const py::bytes& bytes, const py::list& blobs, bool to_run) : store(blobs, to_run) {
    const std::string_view view = bytes;
    raise_if_error(meta.reserve(view.size() + 1));
    std::memcpy(meta.data(), view.data(), view.size());
    raise_if_error(Plan::parse(meta.data(), view.size(), store.blobs(), &plan));
  }
};

}  // namespace lepton
