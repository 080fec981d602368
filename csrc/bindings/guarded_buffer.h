// A copy of an operand whose first or last byte lies against an inaccessible page, so that a kernel
// that reads or writes beyond its operands dies in the test instead of passing.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace lepton {

class GuardedBuffer {
 public:
  // `bytes` of zeros, or a copy of data. at_start: against the page before; else the page after.
  GuardedBuffer(const void* data, size_t bytes, bool at_start)
      : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    const size_t room = (bytes + page_ - 1) / page_ * page_;
    mapped_ = room + 2 * page_;
    void* base = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<uint8_t*>(base);
    if (room != 0 && mprotect(base_ + page_, room, PROT_READ | PROT_WRITE) != 0)
      throw std::bad_alloc();
    data_ = base_ + page_ + (at_start ? 0 : room - bytes);
    if (data != nullptr && bytes != 0) std::memcpy(data_, data, bytes);
  }
  ~GuardedBuffer() { munmap(base_, mapped_); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  size_t page_, mapped_;
  uint8_t* base_;
  uint8_t* data_;
};

}  // namespace lepton
