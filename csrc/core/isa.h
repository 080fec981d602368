// Instruction sets: which exist, which this machine has, which the user allows.
#pragma once

#include <cstdint>
#include <string>

#include "core/status.h"

namespace lepton {

enum class Isa : uint8_t {
#define LEPTON_ISA(suffix, bit, base) k_##suffix = bit,
#include "core/isa.inc"
#undef LEPTON_ISA
};

const char* name_of(Isa isa);
bool isa_from_name(const std::string& name, Isa* isa);

// True when this processor and operating system can execute it (LEPTON_MAX_ISA not considered).
bool machine_has(Isa isa);

// True when a kernel of this isa may be chosen under the cap `max`: it is max, or a base of it.
bool is_within(Isa isa, Isa max);

// The best isa of this machine, lowered to LEPTON_MAX_ISA when that is set. An unknown or
// unsupported value is an error.
Status max_isa(Isa* isa);

}  // namespace lepton
