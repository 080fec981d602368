// lookup: y[i] = table[x[i]], i < n, over bytes. table: 256 bytes. y may be x; no alignment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

using LookupFn = void (*)(const uint8_t* x, const uint8_t* table, uint8_t* y, size_t n);

#define LEPTON_LOOKUP(name, isa) void name(const uint8_t*, const uint8_t*, uint8_t*, size_t);
#include "ops/lookup_kernels.inc"
#undef LEPTON_LOOKUP

}  // namespace lepton
