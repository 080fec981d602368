// gemm_s8_windows: the register tile of a gemm_s8 kernel of form u8, of the same name but for
// "_windows", with rows of lhs that are windows of an image: `runs` stretches of `run` values.
//
//   dst[i][j] = (accumulate ? dst[i][j] : 0) +
//               sum over r < runs, p < run of lhs[i][offset + r · pitch + p] · rhs[r · run + p][j]
//                                                                          i < m <= mr, j < n <= nr
//
// run is a multiple of kr; rhs, dst and overflow as in gemm_s8.h. Exactly the values named are
// read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

struct GemmS8WindowsParams {
  size_t m, n, runs, run, pitch, offset;
  const uint8_t* const* lhs;  // [m]
  const void* rhs;            // int8_t
  int32_t* dst;
  bool accumulate;
};
using GemmS8WindowsKernel = void (*)(const GemmS8WindowsParams&);

}  // namespace lepton
