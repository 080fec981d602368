// Pace: whether a step pays for its threads, found out by measuring it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lepton {

// Decides, run by run, whether one step of one context uses the pool. A short step is timed a few
// times each way and keeps to the faster one, until it is timed again; a long one always uses the
// pool, so no run pays much for a trial. While a step is tried alone, those around it use the pool:
// what it then fetches from other processors' caches is part of its price. Results do not depend on
// any of this.
class Pace {
 public:
  // step: its number in the plan.
  explicit Pace(int step) : step_(step) {}

  bool parallel() const {
    if (runs_ < 2) return true;  // cold caches, then whether the step is long
    return is_trial() ? (runs_ + step_) % kTurns != 0 : parallel_;
  }
  bool is_trial() const { return runs_ < kTrials; }
  // Whether took() has to be told how long the next run takes.
  bool is_timed() const { return runs_ < kConfirmed; }

  void took(int64_t nanoseconds) {
    if (runs_ == 0) {  // cold caches: says only whether the step is long
      if (nanoseconds >= 4 * kLong) return settle(true);
    } else if (is_trial()) {
      int64_t& best = parallel() ? with_pool_ : alone_;
      best = std::min(best, nanoseconds);
      if (with_pool_ >= kLong && with_pool_ != kNever) return settle(true);
      if (runs_ == kTrials - 1) {
        parallel_ = with_pool_ < alone_;
        with_pool_ = kNever;
      }
    } else if (parallel_) {
      // Among steps that keep to one thread the workers may sleep, and waking them costs.
      with_pool_ = std::min(with_pool_, nanoseconds);
      if (runs_ == kConfirmed - 1) parallel_ = with_pool_ < alone_;
    }
    ++runs_;
  }

  // Instead of took() when the step is not timed.
  void ran() {
    if (++runs_ == kPeriod) *this = Pace(step_);
  }

 private:
  static constexpr int64_t kLong = 200'000;
  static constexpr int64_t kNever = int64_t{1} << 62;
  static constexpr int kTurns = 4;       // one step in four is tried alone
  static constexpr int kTrials = 14;     // two runs with the pool, then three turns
  static constexpr int kConfirmed = 17;  // then three runs of the faster way
  static constexpr int kPeriod = 2000;

  void settle(bool parallel) {
    parallel_ = parallel;
    runs_ = kConfirmed;
  }

  int64_t with_pool_ = kNever, alone_ = kNever;
  int step_, runs_ = 0;
  bool parallel_ = true;
};

}  // namespace lepton
