#include "core/isa.h"

#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lepton {
namespace {

struct Entry {
  const char* name;
  Isa isa;
  Isa base;
};

constexpr Entry kEntries[] = {
#define LEPTON_ISA(suffix, bit, base) {#suffix, Isa::k_##suffix, Isa::k_##base},
#include "core/isa.inc"
#undef LEPTON_ISA
};

Isa base_of(Isa isa) {
  for (const Entry& e : kEntries)
    if (e.isa == isa) return e.base;
  return Isa::k_scalar;
}

#if defined(__x86_64__)
// The flags that an ISA's files are compiled with (cmake/LeptonIsa.cmake), all of them. The
// compiler's runtime also asks the operating system (XCR0) whether it keeps the registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
}

// Older compilers do not know this feature by name. Its state is AVX's own.
bool has_avxvnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & 0x10) != 0;
}

#if defined(LEPTON_EMULATE)
bool has_avx512() { return has_avx2(); }
bool has_avx512vnni() { return has_avx2(); }
bool has_avx512bf16() { return has_avx2(); }
bool has_amxint8() { return has_avx2(); }
bool has_amxbf16() { return has_avx2(); }
#else
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool has_avx512vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool has_avx512bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx512vnni() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
         (eax & 0x20) != 0;
}

#if defined(__linux__)
// Tiles are large, so the operating system keeps them (bits 17 and 18 of XCR0) only for processes
// that ask, once for all their threads.
bool has_amxint8() {
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25, kStates = 3u << 17;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool has = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!has_avx512bf16() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
    if ((edx & kTile) == 0 || (edx & kInt8) == 0) return false;
    asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (eax & kStates) == kStates &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return has;
}

bool has_amxbf16() {
  constexpr unsigned kBf16 = 1u << 22;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_amxint8() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
         (edx & kBf16) != 0;
}
#else
bool has_amxint8() { return false; }
bool has_amxbf16() { return false; }
#endif
#endif
#else
bool has_avx2() { return false; }
bool has_avxvnni() { return false; }
bool has_avx512() { return false; }
bool has_avx512vnni() { return false; }
bool has_avx512bf16() { return false; }
bool has_amxint8() { return false; }
bool has_amxbf16() { return false; }
#endif

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
    case Isa::k_avx2: return has_avx2();
    case Isa::k_avxvnni: return has_avxvnni();
    case Isa::k_avx512: return has_avx512();
    case Isa::k_avx512vnni: return has_avx512vnni();
    case Isa::k_avx512bf16: return has_avx512bf16();
    case Isa::k_amxint8: return has_amxint8();
    case Isa::k_amxbf16: return has_amxbf16();
  }
  return false;
}

bool is_within(Isa isa, Isa max) {
  while (isa != max && max != base_of(max)) max = base_of(max);
  return isa == max;
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
