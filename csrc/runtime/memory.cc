#include "runtime/memory.h"

#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <numeric>
#include <utility>

namespace lepton {
namespace {

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

size_t physical_memory() {
  static const size_t bytes = [] {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
    return pages > 0 && page > 0 ? static_cast<size_t>(pages) * static_cast<size_t>(page)
                                 : ~size_t{0};
  }();
  return bytes;
}

// From this size on memory comes in large pages where the system has them: reading weights of
// hundreds of megabytes otherwise waits for the translation of every 4 KB.
constexpr size_t kLargePage = size_t{2} << 20;

std::byte* allocate(size_t bytes) {
  const size_t alignment = bytes < 2 * kLargePage ? kAlignment : kLargePage;
  void* const data = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
#if defined(MADV_HUGEPAGE)
  if (data != nullptr && alignment == kLargePage) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  return static_cast<std::byte*>(data);
}

// The tensors placed so far, found by the steps they live in.
class Placed {
 public:
  explicit Placed(const std::vector<Lifetime>& all) {
    if (all.empty()) return;
    first_ = std::min_element(all.begin(), all.end(), [](const Lifetime& a, const Lifetime& b) {
               return a.first < b.first;
             })->first;
    newest_.resize(static_cast<size_t>(last_start(all)) - first_ + 1, -1);
    nodes_.reserve(2 * all.size());
  }

  // Lowest offset at which `t` fits beside the placed ones that are alive with it.
  size_t first_gap(const Lifetime& t) {
    beside_.clear();
    for (const Lifetime* p : lasting_)
      if (p->last >= t.first && p->first <= t.last) beside_.push_back({p->offset, p->bytes});
    const size_t end = std::min(newest_.size(), static_cast<size_t>(t.last) - first_ + 1);
    for (size_t at = t.first - first_; at < end; ++at) {
      for (int n = newest_[at]; n >= 0; n = nodes_[n].before) {
        const Lifetime& p = *nodes_[n].tensor;
        const bool first_in_common = std::max(p.first, t.first) == static_cast<int>(at) + first_;
        if (first_in_common) beside_.push_back({p.offset, p.bytes});
      }
    }
    std::sort(beside_.begin(), beside_.end());
    size_t offset = 0;
    for (const auto& [begin, bytes] : beside_) {
      if (offset + t.bytes <= begin) break;
      offset = std::max(offset, begin + aligned(bytes));
    }
    return offset;
  }

  void add(const Lifetime& t) {
    if (t.last - t.first >= kShort) {
      lasting_.push_back(&t);
      return;
    }
    const size_t end = std::min(newest_.size(), static_cast<size_t>(t.last) - first_ + 1);
    for (size_t at = t.first - first_; at < end; ++at) {
      nodes_.push_back({&t, newest_[at]});
      newest_[at] = static_cast<int>(nodes_.size()) - 1;
    }
  }

 private:
  static constexpr int kShort = 16;  // steps up to which a tensor is listed under each of them
  struct Node {
    const Lifetime* tensor;
    int before;
  };

  static int last_start(const std::vector<Lifetime>& all) {
    int last = all.front().first;
    for (const Lifetime& t : all) last = std::max(last, t.first);
    return last;
  }

  int first_ = 0;
  std::vector<int> newest_;  // by step: the last node, -1 for none
  std::vector<Node> nodes_;
  std::vector<const Lifetime*> lasting_;
  std::vector<std::pair<size_t, size_t>> beside_;  // offset, bytes
};

// Places tensors in this order; returns the bytes needed.
size_t place(const std::vector<int>& order, std::vector<Lifetime>& lifetimes) {
  Placed placed(lifetimes);
  size_t total = 0;
  for (int i : order) {
    Lifetime& t = lifetimes[i];
    t.offset = 0;
    if (t.bytes == 0) continue;
    t.offset = placed.first_gap(t);
    total = std::max(total, t.offset + aligned(t.bytes));
    placed.add(t);
  }
  return total;
}

// Size times life, as far as a double holds it.
double area(const Lifetime& t) {
  return static_cast<double>(t.bytes) * (static_cast<double>(t.last) - t.first + 1);
}

}  // namespace

size_t lay_out(std::vector<Lifetime>& lifetimes) {
  std::vector<int> order(lifetimes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
  const size_t total = place(order, lifetimes);
  if (total <= largest_live_set(lifetimes)) return total;
  std::vector<Lifetime> other = lifetimes;
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return area(lifetimes[a]) > area(lifetimes[b]); });
  const size_t other_total = place(order, other);
  if (other_total < total) lifetimes.swap(other);
  return std::min(total, other_total);
}

size_t largest_live_set(const std::vector<Lifetime>& lifetimes) {
  if (lifetimes.empty()) return 0;
  int first = lifetimes.front().first, last = first;
  for (const Lifetime& t : lifetimes) {
    first = std::min(first, t.first);
    last = std::max(last, t.first);
  }
  std::vector<ptrdiff_t> changes(static_cast<size_t>(last) - first + 1);
  for (const Lifetime& t : lifetimes) {
    const auto bytes = static_cast<ptrdiff_t>(aligned(t.bytes));
    changes[t.first - first] += bytes;
    if (t.last < last) changes[t.last + 1 - first] -= bytes;
  }
  ptrdiff_t live = 0, largest = 0;
  for (ptrdiff_t change : changes) largest = std::max(largest, live += change);
  return static_cast<size_t>(largest);
}

void move_to_large_pages(const std::vector<Blob>& constants) {
#ifdef __linux__
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, which older headers do not name
  std::map<uintptr_t, size_t> filled;
  for (const Blob& blob : constants) {
    const auto begin = reinterpret_cast<uintptr_t>(blob.data), end = begin + blob.size;
    for (uintptr_t page = begin / kLargePage * kLargePage; page < end; page += kLargePage)
      filled[page] += std::min(end, page + kLargePage) - std::max(begin, page);
  }
  for (const auto& [page, bytes] : filled)
    if (bytes >= kLargePage / 2) madvise(reinterpret_cast<void*>(page), kLargePage, kCollapse);
#endif
}

void release_free_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

Buffer::Buffer(Buffer&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)), capacity_(std::exchange(o.capacity_, 0)) {}

Buffer& Buffer::operator=(Buffer&& o) noexcept {
  std::swap(data_, o.data_);
  std::swap(capacity_, o.capacity_);
  return *this;
}

Buffer::~Buffer() { std::free(data_); }

Status Buffer::reserve(size_t bytes) {
  if (bytes <= capacity_) return {};
  if (bytes > physical_memory())
    return {Code::kOutOfMemory, "this needs " + std::to_string(bytes >> 20) +
                                    " MiB of working memory, more than the machine has"};
  std::free(data_);
  capacity_ = 0;
  data_ = allocate(aligned(bytes));
  if (data_ == nullptr)
    return {Code::kOutOfMemory, "out of memory: " + std::to_string(bytes >> 20) + " MiB"};
  capacity_ = aligned(bytes);
  return {};
}

}  // namespace lepton
