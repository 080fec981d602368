// peak: loops of independent instructions on registers alone, for benchmarks: what the processor
// can do at most with the instructions that a kernel's inner loop is made of, measured where the
// kernel is measured. A call runs `iterations` rounds of kPeakGroups such groups.
#pragma once

#include <cstddef>

namespace lepton {

constexpr size_t kPeakGroups = 12;

using PeakLoop = void (*)(size_t iterations);

#define LEPTON_PEAK(name, isa, macs) void name(size_t iterations);
#include "ops/peak_kernels.inc"
#undef LEPTON_PEAK

}  // namespace lepton
