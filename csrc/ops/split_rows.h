// split_row: one row of floats as fixed-point integers of 8-bit digits, group by group, in the form
// that gemm_s8u4.h reads.
//
//   v[p] = rint(x[p] · factor) = sum over d of 256^d · digit[p][d],  −128 <= digit <= 127
//   largest = max |x[p]| of the group
//   three digits: factor = the largest power of two with |v| <= 8355711 (that is 127·65536 +
//   127·256
//                 + 127), at most 2^126: integers hold at least 22 bits of the largest element
//   one digit:    factor = 127 / largest; 0 where largest < 2^-100
//   scale = 1 / factor (one digit: largest / 127)
//
// NaN and infinities count as zeros; returns whether there were none. rint: ties to even; results
// are bit-identical on every ISA. No pointer needs alignment; exactly k floats are read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

// Groups of `group` elements are followed by zeros up to padded_group, a multiple of 8 (the last
// one up to the next multiple of 8).
struct SplitRowParams {
  size_t digits;  // 1 or 3
  size_t k, group, padded_group;
  const float* x;
  int8_t* dst;        // [·][digits][8], dst_stride bytes from one eight to the next, in the order
  size_t dst_stride;  // {0, 2, 1, 3, 4, 6, 5, 7}
  int32_t offset;     // start[g][d] = −offset · sum of digit d over the group,
  int32_t* start;     // start_stride elements from one group to the next
  size_t start_stride;
  float* scale;  // one a group, scale_stride apart
  float* sum;    // sum of v over the group as the kernels join digits, as far apart; or null
  size_t scale_stride;
};
using SplitRowKernel = bool (*)(const SplitRowParams&);

#define LEPTON_SPLIT_ROW(name, isa) bool name(const SplitRowParams& params);
#include "ops/split_rows_kernels.inc"
#undef LEPTON_SPLIT_ROW

}  // namespace lepton
