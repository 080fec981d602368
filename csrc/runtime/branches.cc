#include "runtime/branches.h"

#include <algorithm>
#include <numeric>

namespace lepton {
namespace {

// Steps of a stretch, at most: looking for longer ones would make binding slow.
constexpr size_t kMostSteps = 64;

bool holds(const std::vector<int>& ids, int id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool overlap(const std::vector<int>& a, const std::vector<int>& b) {
  return std::any_of(a.begin(), a.end(), [&](int id) { return holds(b, id); });
}

// Whether the order of two steps matters.
bool conflict(const StepAccess& a, const StepAccess& b) {
  return overlap(a.writes, b.reads) || overlap(a.writes, b.writes) || overlap(a.reads, b.writes);
}

// The chains of steps from `first` on, step by step.
class Growing {
 public:
  Growing(const std::vector<StepAccess>& steps, size_t first, int fork)
      : steps_(steps), first_(first), fork_(fork) {}

  // Adds the next step; false when it belongs to none of the chains and begins none.
  bool add() {
    const size_t at = first_ + parent_.size();
    const size_t mine = parent_.size();
    parent_.push_back(mine);
    ++chains_;
    for (size_t i = 0; i < mine; ++i)
      if (find(i) != find(mine) && conflict(steps_[first_ + i], steps_[at])) {
        parent_[find(i)] = find(mine);
        --chains_;
      }
    const bool joined = std::any_of(parent_.begin(), parent_.end() - 1,
                                    [&](size_t i) { return find(i) == find(mine); });
    return joined || holds(steps_[at].reads, fork_);
  }

  size_t chains() const { return chains_; }
  // The chains as they are now, numbered from 0.
  Branches branches() const {
    Branches made;
    made.first = first_;
    made.last = first_ + parent_.size();
    std::vector<size_t> roots;
    for (size_t i = 0; i < parent_.size(); ++i) {
      const auto at = std::find(roots.begin(), roots.end(), find(i));
      made.chain.push_back(static_cast<size_t>(at - roots.begin()));
      if (at == roots.end()) roots.push_back(find(i));
    }
    made.chains = roots.size();
    return made;
  }

 private:
  size_t find(size_t i) const {
    while (parent_[i] != i) i = parent_[i];
    return i;
  }

  const std::vector<StepAccess>& steps_;
  size_t first_;
  int fork_;
  std::vector<size_t> parent_;
  size_t chains_ = 0;
};

// The stretch from `first` on whose chains begin with readers of `fork`; without chains: none.
Branches grow(const std::vector<StepAccess>& steps, size_t first, int fork) {
  size_t last_reader = first;
  const size_t most = std::min(steps.size(), first + kMostSteps);
  for (size_t i = first; i < most; ++i)
    if (holds(steps[i].reads, fork)) last_reader = i;
  Branches found;
  if (last_reader == first) return found;
  Growing growing(steps, first, fork);
  for (size_t i = first; i < most; ++i) {
    const size_t before = growing.chains();
    if (!growing.add()) break;
    const bool alone = growing.chains() < 2;
    if (alone && (before >= 2 || i >= last_reader)) break;
    if (!alone) found = growing.branches();
  }
  return found;
}

}  // namespace

void BranchPace::took(int64_t nanoseconds) {
  int64_t& best = best_[side_by_side() ? 1 : 0];
  best = std::min(best, nanoseconds);
  if (++runs_ != kDecided) return;
  side_by_side_ = best_[1] < best_[0];
  best_[0] = best_[1] = kNever;
}

void Branches::prepare(size_t threads) {
  nanoseconds.assign(chains, 0);
  share.assign(chains, 0);
  load_.assign(threads, 0);
  failed = std::vector<Status>(threads);
  order_.resize(chains);
  std::iota(order_.begin(), order_.end(), size_t{0});
}

void Branches::divide() {
  std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
    return nanoseconds[a] != nanoseconds[b] ? nanoseconds[a] > nanoseconds[b] : a < b;
  });
  std::fill(load_.begin(), load_.end(), 0);
  for (const size_t i : order_) {
    share[i] = static_cast<size_t>(std::min_element(load_.begin(), load_.end()) - load_.begin());
    load_[share[i]] += nanoseconds[i];
  }
}

std::vector<Branches> find_branches(const std::vector<StepAccess>& steps) {
  std::vector<Branches> found;
  for (size_t i = 0; i < steps.size();) {
    Branches longest;
    for (const int fork : steps[i].reads) {
      Branches branches = grow(steps, i, fork);
      if (branches.chains > 0 && branches.last > longest.last) longest = std::move(branches);
    }
    i = longest.chains > 0 ? longest.last : i + 1;
    if (longest.chains > 0) found.push_back(std::move(longest));
  }
  return found;
}

}  // namespace lepton
