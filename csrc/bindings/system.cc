// The machine as the runtime sees it, and the mapping of Status to Python exceptions.
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "core/isa.h"
#include "core/thread_pool.h"
#include "runtime/memory.h"
#include "runtime/plan_file.h"

namespace py = pybind11;

namespace lepton {
namespace {

const char* exception_of(Code code) {
  switch (code) {
    case Code::kInvalidModel: return "ModelError";
    case Code::kInvalidInput: return "InputError";
    case Code::kUnsupported: return "UnsupportedError";
    default: return "Error";
  }
}

std::vector<std::string> machine_isas() {
  std::vector<std::string> names;
#define LEPTON_ISA(suffix, bit, base) \
  if (machine_has(Isa::k_##suffix)) names.push_back(#suffix);
#include "core/isa.inc"
#undef LEPTON_ISA
  return names;
}

std::vector<std::string> usable_isas() {
  Isa max;
  raise_if_error(max_isa(&max));
  std::vector<std::string> names;
#define LEPTON_ISA(suffix, bit, base) \
  if (is_within(Isa::k_##suffix, max)) names.push_back(#suffix);
#include "core/isa.inc"
#undef LEPTON_ISA
  return names;
}

}  // namespace

py::array_t<uint8_t> aligned_bytes(size_t bytes) {
  auto buffer = std::make_unique<Buffer>();
  raise_if_error(buffer->reserve(bytes == 0 ? 1 : bytes));
  auto* data = reinterpret_cast<uint8_t*>(buffer->data());
  const py::capsule owner(buffer.release(), [](void* b) { delete static_cast<Buffer*>(b); });
  return py::array_t<uint8_t>(static_cast<py::ssize_t>(bytes), data, owner);
}

void raise_if_error(const Status& status) {
  if (status.ok()) return;
  // A broken plan may quote names that are not UTF-8.
  const std::string& text = status.message();
  const auto message = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "replace"));
  if (!message) throw py::error_already_set();
  const py::object type =
      status.code() == Code::kOutOfMemory
          ? py::reinterpret_borrow<py::object>(PyExc_MemoryError)
          : py::module_::import("lepton_rt.errors").attr(exception_of(status.code()));
  PyErr_SetObject(type.ptr(), message.ptr());
  throw py::error_already_set();
}

void register_system(py::module_& m) {
  m.def("machine_isas", &machine_isas,
        "Instruction sets of this machine that have kernels, weakest first.");
  m.def(
      "max_isa",
      [] {
        Isa isa;
        raise_if_error(max_isa(&isa));
        return std::string(name_of(isa));
      },
      "The best of machine_isas(), lowered to LEPTON_MAX_ISA when that is set.");
  m.def("usable_isas", &usable_isas, "max_isa() and the instruction sets it includes.");
  m.def(
      "kernel_digest", [] { return std::string(kernel_digest); },
      "SHA-256 of the kernel lists, their contracts and packers: what plans depend on.");
  m.def("release_memory", &release_free_memory, py::call_guard<py::gil_scoped_release>(),
        "Gives freed memory back to the system.");
  m.def("usable_processors", &usable_processors,
        "Processors this process may use (affinity and cgroup quota respected).");
}

}  // namespace lepton
