// Rows of floats as the left operand of gemm_s8, each quantised by itself to uint8 over the range
// it has at run time (quantize_rows.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/isa.h"
#include "core/thread_pool.h"
#include "ops/gemm_lhs.h"
#include "ops/quantize_rows.h"

namespace lepton {

class RowQuantizer {
 public:
  // In the kernel's form, stride bytes apart: what GemmS8Block takes. Where rows are int16 their
  // zero points are subtracted already, and zero_point is null.
  struct Rows {
    const std::byte* rows;
    size_t stride;
    const int32_t* zero_point;
    const float* scale;
  };

  RowQuantizer() = default;
  RowQuantizer(const GemmS8Lhs& lhs, Isa max);
  size_t scratch_bytes(size_t m, size_t k) const;
  // m rows of k floats, x_stride floats apart. scratch: aligned to a cache line, lives as long as
  // the rows.
  Rows quantize(const float* x, size_t m, size_t k, size_t x_stride, std::byte* scratch,
                Parallel parallel) const;

 private:
  GemmS8Lhs lhs_;
  QuantizeRowI16Kernel i16_ = nullptr;
  QuantizeRowU8Kernel u8_ = nullptr;
};

}  // namespace lepton
