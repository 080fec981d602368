#include "core/isa.h"

#include <cstdlib>

namespace lepton {
namespace {

struct Entry {
  const char* name;
  Isa isa;
};

constexpr Entry kEntries[] = {
#define LEPTON_ISA(suffix, bit) {#suffix, Isa::k_##suffix},
#include "core/isa.inc"
#undef LEPTON_ISA
};

}  // namespace

const char* name_of(Isa isa) {
  for (const Entry& e : kEntries)
    if (e.isa == isa) return e.name;
  return "unknown";
}

bool isa_from_name(const std::string& name, Isa* isa) {
  for (const Entry& e : kEntries) {
    if (name == e.name) {
      *isa = e.isa;
      return true;
    }
  }
  return false;
}

bool machine_has(Isa isa) {
  switch (isa) {
    case Isa::k_scalar: return true;
    case Isa::k_avx2:
#if defined(__x86_64__)
      // The flags its files are compiled with (cmake/LeptonIsa.cmake), all of them.
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
#else
      return false;
#endif
  }
  return false;
}

Status max_isa(Isa* isa) {
  *isa = Isa::k_scalar;
  for (const Entry& e : kEntries)
    if (machine_has(e.isa)) *isa = e.isa;
  const char* cap = std::getenv("LEPTON_MAX_ISA");
  if (cap == nullptr || *cap == '\0') return {};
  Isa wanted;
  std::string known;
  for (const Entry& e : kEntries) known += std::string(known.empty() ? "" : ", ") + e.name;
  if (!isa_from_name(cap, &wanted))
    return invalid_input("LEPTON_MAX_ISA is \"" + std::string(cap) + "\"; known values: " + known);
  if (!machine_has(wanted))
    return unsupported("LEPTON_MAX_ISA asks for " + std::string(cap) +
                       ", which this machine does not have");
  *isa = wanted;
  return {};
}

}  // namespace lepton
