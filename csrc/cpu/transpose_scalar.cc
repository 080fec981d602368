// Portable 2-D transpose in 8x8 blocks: a block's eight source and eight destination lines stay in
// L1 while its elements move one at a time. Bound by one load and one store per element.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/transpose.h"

namespace lepton {
namespace {

constexpr size_t kBlock = 8;

template <size_t kSize>
void transpose(const TransposeParams& p) {
  const char* src = static_cast<const char*>(p.src);
  char* dst = static_cast<char*>(p.dst);
  for (size_t j0 = 0; j0 < p.cols; j0 += kBlock) {
    const size_t j1 = j0 + kBlock < p.cols ? j0 + kBlock : p.cols;
    for (size_t i0 = 0; i0 < p.rows; i0 += kBlock) {
      const size_t i1 = i0 + kBlock < p.rows ? i0 + kBlock : p.rows;
      for (size_t j = j0; j < j1; ++j)
        for (size_t i = i0; i < i1; ++i)
          std::memcpy(dst + static_cast<ptrdiff_t>(j) * p.dst_stride + i * kSize,
                      src + static_cast<ptrdiff_t>(i) * p.src_stride + j * kSize, kSize);
    }
  }
}

}  // namespace

void transpose_x1_8x8_scalar(const TransposeParams& p) { transpose<1>(p); }
void transpose_x2_8x8_scalar(const TransposeParams& p) { transpose<2>(p); }
void transpose_x4_8x8_scalar(const TransposeParams& p) { transpose<4>(p); }
void transpose_x8_8x8_scalar(const TransposeParams& p) { transpose<8>(p); }

}  // namespace lepton
