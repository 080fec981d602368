// Packing for gemm_s8 kernels of form u8 runs: 16-bit accumulation whose bounds are proved from the
// weights. And the proof that those of form u8 pairs ask for, a run of one everywhere.
//
// vpmaddubsw sums two products of a column into an int16 lane. For lhs values in [0, bound], a lane
// stays within int16 over a run of quads while bound · (sum of the run's positive weights in that
// lane) <= 32767 and bound · (sum of its negative ones) >= −32768: this covers every partial sum.
// The packer forms such runs. Quads may be visited in any order, so heavy ones are put together
// with light ones; a quad that breaks the bound by itself is split into two halves, w = w/2 + (w −
// w/2), that multiply the same quad of lhs; quads of zeros are left out. A section of k is as long
// as its quads of lhs stay in L1, and runs do not cross sections.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/status.h"
#include "ops/gemm.h"

namespace lepton {

// How many quads are in runs of each length, and how many of all stand twice.
struct RunStatistics {
  size_t in_runs4 = 0, in_runs2 = 0, in_runs1 = 0;
  size_t visited() const { return in_runs4 + in_runs2 + in_runs1; }
  size_t dense = 0;  // quads of the matrix, zeros included
  // Instructions for a row and eight columns, per quad of the matrix; widening to int16 takes 4.
  double cost() const;
};

// The matrices of an operand, packed in runs for a kernel of form kU8Runs. Their values minus zero
// points are int8s, lhs values lie in [0, bound], and bound is in [1, 255].
class PackedRuns {
 public:
  PackedRuns(const GemmS8KernelInfo& kernel, int bound) : kernel_(kernel), bound_(bound) {}
  void add(const PackGemmS8& matrix);
  // Bytes from one panel to the next that the longest one needs.
  size_t panel_stride() const { return stride_; }
  size_t panels() const { return panels_.size(); }
  // Writes all panels `stride` bytes apart.
  void store(size_t stride, std::byte* to) const;

 private:
  void add_panel(const PackGemmS8& matrix, size_t panel);

  const GemmS8KernelInfo& kernel_;
  int bound_;
  size_t stride_ = 0;
  std::vector<std::vector<std::byte>> panels_;
};

// Whether no pair of neighbours of p, in any column of b, can leave int16 when it multiplies lhs
// values in [0, bound]. Values of b minus zero points are int8s.
bool pairs_fit(const PackGemmS8& args, int bound);

// The most quads that a place can name.
constexpr size_t kMaxRunDepth = size_t{4} << 16;

// Statistics of a few sections of b, spread over all of it.
RunStatistics sample_gemm_runs(const PackGemmS8& args, int bound);

// Checks that the strips of a packed panel lie within `bytes` and read lhs only below k; adds to
// `statistics` unless it is null. Whether sums stay in int16 is not checked: wrong weights make
// wrong sums, no wrong addresses.
Status check_gemm_runs(const std::byte* strips, size_t bytes, size_t width, size_t k,
                       RunStatistics* statistics);

}  // namespace lepton
