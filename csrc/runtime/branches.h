// Branches: stretches of a segment's steps that fall into chains which touch none of each other's
// memory, such as the modules of an Inception network. Whether threads take a chain each or share
// out every step is found out by measuring.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/status.h"

namespace lepton {

// The memory of one step, by the tensors that own it; constants are left out.
struct StepAccess {
  std::vector<int> reads, writes;
};

// Decides, run by run, how a stretch is run. While its steps find their own paces (pace.h) they run
// one after another; then both ways are timed three times in turns, and the faster one is kept,
// until it is timed again.
class BranchPace {
 public:
  bool side_by_side() const { return is_timed() ? (runs_ - kSettled) % 2 == 1 : side_by_side_; }
  bool is_timed() const { return runs_ >= kSettled && runs_ < kDecided; }
  void took(int64_t nanoseconds);
  // Instead of took() when the run is not timed.
  void ran() {
    if (++runs_ == kPeriod) runs_ = kSettled;
  }

 private:
  static constexpr int kSettled = 20, kDecided = kSettled + 6, kPeriod = 2000;
  static constexpr int64_t kNever = int64_t{1} << 62;

  int64_t best_[2] = {kNever, kNever};  // one after another, side by side
  int runs_ = 0;
  bool side_by_side_ = false;
};

// Steps [first, last) of a segment.
struct Branches {
  size_t first = 0, last = 0;
  size_t chains = 0;
  std::vector<size_t> chain;         // of each step
  std::vector<int64_t> nanoseconds;  // of each chain, when it was timed last
  std::vector<size_t> share;         // of each chain: the thread that takes it
  std::vector<Status> failed;        // of each thread
  BranchPace pace;

  // Makes room for that many threads.
  void prepare(size_t threads);
  // Divides the chains among the threads by their times, the longest first.
  void divide();

 private:
  std::vector<size_t> order_;
  std::vector<int64_t> load_;
};

// The stretches of these steps, ascending and apart. All chains of one begin with readers of one
// tensor, and it ends before the chains meet.
std::vector<Branches> find_branches(const std::vector<StepAccess>& steps);

}  // namespace lepton
