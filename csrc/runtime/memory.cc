#include "runtime/memory.h"

#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cstdlib>
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

// Lowest offset at which `t` fits beside the placed ones that are alive with it.
size_t first_gap(const Lifetime& t, const std::vector<const Lifetime*>& placed) {
  size_t offset = 0;
  for (const Lifetime* p : placed) {  // by offset
    if (p->last < t.first || p->first > t.last) continue;
    if (offset + t.bytes <= p->offset) break;
    offset = std::max(offset, p->offset + aligned(p->bytes));
  }
  return offset;
}

// Places tensors in this order; returns the bytes needed.
size_t place(const std::vector<int>& order, std::vector<Lifetime>& lifetimes) {
  std::vector<const Lifetime*> placed;
  placed.reserve(lifetimes.size());
  size_t total = 0;
  for (int i : order) {
    Lifetime& t = lifetimes[i];
    t.offset = first_gap(t, placed);
    total = std::max(total, t.offset + aligned(t.bytes));
    const auto at =
        std::upper_bound(placed.begin(), placed.end(), t.offset,
                         [](size_t offset, const Lifetime* p) { return offset < p->offset; });
    placed.insert(at, &t);
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
  std::vector<std::pair<int, ptrdiff_t>> changes;  // step, bytes from there on
  for (const Lifetime& t : lifetimes) {
    const auto bytes = static_cast<ptrdiff_t>(aligned(t.bytes));
    changes.emplace_back(t.first, bytes);
    changes.emplace_back(t.last + 1, -bytes);
  }
  std::sort(changes.begin(), changes.end());
  ptrdiff_t live = 0, largest = 0;
  for (const auto& [step, bytes] : changes) largest = std::max(largest, live += bytes);
  return static_cast<size_t>(largest);
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
