// Memory of a bound context: one aligned buffer, laid out so that tensors whose lifetimes do not
// overlap share bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "core/status.h"

namespace lepton {

// A tensor that must live from step `first` to step `last`, both included.
struct Lifetime {
  int first, last;
  size_t bytes;
  size_t offset;  // filled by lay_out
};

// Greedy by size (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference",
// arXiv 2001.03288): the largest first, each at the lowest offset free during its life. Returns the
// bytes needed; offsets are multiples of 64.
size_t lay_out(std::vector<Lifetime>& lifetimes);

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
