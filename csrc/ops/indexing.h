// Index tensors of Gather and Scatter: int32 or int64, negative values count from the end.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "core/status.h"

namespace lepton {

// Each index is read once, so a caller who changes it meanwhile cannot get past the check.
class IndexReader {
 public:
  IndexReader(const void* data, DType dtype) : data_(data), wide_(dtype == DType::kS64) {}

  // Element i as a position in [0, size), or -1 when it is out of range.
  int64_t position(int64_t i, int64_t size) const {
    int64_t v =
        wide_ ? static_cast<const int64_t*>(data_)[i] : static_cast<const int32_t*>(data_)[i];
    if (v < 0) v += size;
    return v < 0 || v >= size ? -1 : v;
  }

 private:
  const void* data_;
  bool wide_;
};

// Remembers that some index was out of range; any thread may report.
class RangeFailure {
 public:
  void report() { failed_.store(true, std::memory_order_relaxed); }
  Status status(const char* op) const {
    if (!failed_.load(std::memory_order_relaxed)) return {};
    return invalid_input(std::string(op) + ": an index is out of range");
  }

 private:
  std::atomic<bool> failed_{false};
};

}  // namespace lepton
