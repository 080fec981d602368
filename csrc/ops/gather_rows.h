// gather_rows: the lhs rows of a convolution from an image that has its padding: row i is a window
// that begins i steps further in the image, and consists of one stretch of each of its lines.
//
//   dst[i·dst_stride + j·bytes + b] = src[i·step + j·line + b]     i < m, j < stretches, b < bytes
//
// All sizes are in bytes, m, stretches and bytes at least 1, dst_stride >= stretches · bytes; no
// alignment is asked for. Kernels move whole blocks: up to kGatherBlock − 1 bytes behind a stretch
// of src are read, and as many behind the last row of dst are written, as are those between rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

constexpr size_t kGatherBlock = 32;

struct GatherRowsParams {
  size_t m, stretches, bytes;
  const uint8_t* src;
  size_t step, line;
  uint8_t* dst;
  size_t dst_stride;
};
using GatherRowsKernel = void (*)(const GatherRowsParams&);

}  // namespace lepton
