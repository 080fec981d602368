#include "runtime/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

namespace lepton {
namespace {

constexpr size_t kAlignment = 64;

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

}  // namespace

size_t lay_out(std::vector<Lifetime>& lifetimes) {
  std::vector<int> order(lifetimes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
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
