// Memory of a bound context: one aligned buffer, laid out so that tensors whose lifetimes do not
// overlap share bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "core/status.h"

namespace lepton {

constexpr size_t kAlignment = 64;

// A tensor that must live from step `first` to step `last`, both included.
struct Lifetime {
  int first, last;
  size_t bytes;
  size_t offset;  // filled by lay_out
};

// Greedy by size (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference",
// arXiv 2001.03288): the largest first, each at the lowest offset free during its life; where that
// leaves gaps, by size times life as well, and the better of the two is kept. Returns the bytes
// needed; offsets are multiples of kAlignment.
size_t lay_out(std::vector<Lifetime>& lifetimes);

// Bytes of the tensors alive at once, at most: no layout needs less.
size_t largest_live_set(const std::vector<Lifetime>& lifetimes);

struct Blob {
  const std::byte* data;
  size_t size;
};

// Moves constants to large pages where the system can (Linux from 6.1 on); their addresses stay.
// Only large pages at least half of which is constants: what lies beside them moves, too.
void move_to_large_pages(const std::vector<Blob>& constants);

// Gives what was freed back to the system, where the allocator would keep it.
void release_free_memory();

// 64-byte aligned bytes. Grows, never shrinks; contents are not kept when it grows.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& o) noexcept;
  Buffer& operator=(Buffer&& o) noexcept;
  ~Buffer();

  // Refuses more than the machine's memory, which would only be killed later.
  Status reserve(size_t bytes);
  std::byte* data() const { return data_; }
  size_t capacity() const { return capacity_; }

 private:
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace lepton
