// The left operand of gemm_s8: from rows of 8-bit integers, as they lie in a tensor, to the form
// that a kernel reads. Everything about these forms outside the kernels and the packer is here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/copy_u8.h"
#include "ops/gemm.h"
#include "ops/widen_s8.h"

namespace lepton {

struct WidenS8KernelInfo {
  const char* name;
  Isa isa;
  WidenS8Kernel run;
};
struct CopyU8KernelInfo {
  const char* name;
  Isa isa;
  CopyU8Kernel run;
};
KernelList<WidenS8KernelInfo> widen_s8_kernels();
KernelList<CopyU8KernelInfo> copy_u8_kernels();

class GemmS8Lhs {
 public:
  GemmS8Lhs() = default;
  // is_signed: the tensor is s8 (else u8).
  GemmS8Lhs(const GemmS8KernelInfo& kernel, bool is_signed, Isa max);

  bool is_u8() const { return is_u8_; }  // else int16
  // Elements and bytes of a prepared row.
  size_t row_stride(size_t k) const;
  size_t row_bytes(size_t k) const;
  // Whether rows of k serve as they lie.
  bool reads_in_place(size_t k) const { return is_u8_ && !signed_ && k % kr_ == 0; }
  // What is still in the prepared values of a tensor with this zero point: the plan's zero_point.
  int32_t zero_point_left(int32_t zero_point) const;

  // m rows of k bytes, src_stride bytes apart, to prepared elements dst_stride apart; the elements
  // from k to k_padded get some value that the padded rhs cancels.
  void prepare(size_t m, size_t k, size_t k_padded, const void* src, size_t src_stride,
               int32_t zero_point, void* dst, size_t dst_stride) const;

 private:
  bool is_u8_ = false, signed_ = false;
  size_t kr_ = 1;
  WidenS8Kernel widen_ = nullptr;
  CopyU8Kernel copy_ = nullptr;
};

}  // namespace lepton
