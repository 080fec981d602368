// What every kernel list shares. A list's metadata is compiled on every host, so that a plan can be
// made here for a machine that is not here; only the function pointer depends on whether this build
// contains the ISA (LEPTON_HAS_<isa>, defined by CMake as 0 or 1 for every row of its table).
#pragma once

#include <cstddef>
#include <string_view>

#include "core/isa.h"

#define LEPTON_CONCAT_INNER(a, b) a##b
#define LEPTON_CONCAT(a, b) LEPTON_CONCAT_INNER(a, b)
#define LEPTON_POINTER_0(kernel) nullptr
#define LEPTON_POINTER_1(kernel) kernel
// The kernel when this build contains its isa, else nullptr.
#define LEPTON_KERNEL_POINTER(isa, kernel) \
  LEPTON_CONCAT(LEPTON_POINTER_, LEPTON_CONCAT(LEPTON_HAS_, isa))(kernel)

namespace lepton {

// The lines of one list, in order of preference. Info has name, isa and run.
template <typename Info>
struct KernelList {
  const Info* first;
  size_t count;
  const Info* begin() const { return first; }
  const Info* end() const { return first + count; }

  // By name, runnable here or not; null when no line has it.
  const Info* describe(std::string_view name) const {
    for (const Info& info : *this)
      if (info.name == name) return &info;
    return nullptr;
  }
  // By name; null unless this build and this machine can run it.
  const Info* find(std::string_view name) const {
    const Info* info = describe(name);
    return info != nullptr && is_runnable(*info) ? info : nullptr;
  }
  // The preferred line for a target capped at `max`, which need not be this machine.
  const Info* select(Isa max) const {
    for (const Info& info : *this)
      if (is_within(info.isa, max)) return &info;
    return nullptr;
  }
  // The preferred line that runs here under the cap; the scalar line is always there.
  const Info* best(Isa max) const {
    for (const Info& info : *this)
      if (is_within(info.isa, max) && is_runnable(info)) return &info;
    return nullptr;
  }
  static bool is_runnable(const Info& info) { return info.run != nullptr && machine_has(info.isa); }
};

}  // namespace lepton
