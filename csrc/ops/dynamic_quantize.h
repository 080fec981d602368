// Quantisation of a float tensor to u8 with the range it has at run time, as ONNX's
// DynamicQuantizeLinear defines it; for the operator itself and for layers that take in floats and
// multiply integers.
//
//   scale = (max − min) / 255 over the range that includes zero, or 1 when it is empty
//   zero_point = rint(clamp(−min / scale, 0, 255))
//   y = clamp(rint(x / scale) + zero_point, 0, 255)
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/isa.h"
#include "core/thread_pool.h"
#include "ops/convert.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"

namespace lepton {

class DynamicQuantizer {
 public:
  // How n elements are shared out.
  struct Bound {
    int64_t n = 0, chunks = 1;
    size_t scratch_bytes() const;
  };
  struct Range {
    float scale;
    uint8_t zero_point;
  };

  explicit DynamicQuantizer(Isa isa);
  static Bound bind(int64_t n, int threads);
  // scratch: bound.scratch_bytes(), aligned to a cache line.
  Range range(const Bound& bound, const float* x, std::byte* scratch, Parallel parallel) const;
  void quantize(const Bound& bound, const float* x, const Range& range, uint8_t* y,
                Parallel parallel) const;

 private:
  ReduceRowFn row_min_, row_max_;
  MicroFn quantize_;
  ConvertFn store_;
};

}  // namespace lepton
