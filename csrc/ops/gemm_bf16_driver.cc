// Products of rows that are rounded to bfloat16 by weights kept so, where the processor multiplies
// the two. The rows of a block are rounded once. Then k is cut outermost: the same piece of every
// panel of a range passes by a piece of the rows, and the sums of the range stay in `partial`.
#include <algorithm>

#include "ops/convert.h"
#include "ops/gemm_bf16_kernels.h"
#include "ops/gemm_f32_finish.h"
#include "ops/op.h"

namespace lepton {
namespace {

// Rows of a panel in L1 at once, a multiple of every kr: 32 KB of 32 columns.
constexpr size_t kPieceDepth = 512;
// Sums of a range of panels: 144 KB of L2.
constexpr size_t kPartialFloats = 36 * 1024;

struct Sizes {
  size_t depth;   // k, padded
  size_t rows;    // whole register tiles of them
  size_t panels;  // whose sums are kept
  size_t rounded_floats() const { return round_up(rows * depth / 2, kCacheLine); }

  Sizes(const GemmBf16KernelInfo& kernel, size_t m, size_t k) {
    const size_t nr = static_cast<size_t>(kernel.nr);
    depth = round_up(k, static_cast<size_t>(kernel.kr));
    rows = round_up(m, static_cast<size_t>(kernel.pairs_mr));
    panels = k <= kPieceDepth ? 1 : std::max<size_t>(1, kPartialFloats / (rows * nr));
  }
};

class Block {
 public:
  Block(const GemmF32Plan& plan, const GemmF32Block& block)
      : plan_(plan),
        block_(block),
        kernel_(*plan.bf16),
        nr_(static_cast<size_t>(kernel_.nr)),
        sizes_(kernel_, block.m, plan.k),
        rounded_(reinterpret_cast<uint16_t*>(block.partial)),
        sums_(block.partial + sizes_.rounded_floats()) {}

  void run() const {
    round_rows();
    for (size_t first = block_.first; first < block_.last; first += sizes_.panels)
      multiply(first, std::min(first + sizes_.panels, block_.last));
  }

 private:
  // The rows, and zeros up to the padded depth.
  void round_rows() const {
    const ConvertFn round = find_store(Compute::kF32, DType::kBF16, kernel_.isa);
    for (size_t i = 0; i < block_.m; ++i) {
      uint16_t* const row = rounded_ + i * sizes_.depth;
      round(block_.rows + i * block_.row_stride, row, plan_.k);
      std::fill(row + plan_.k, row + sizes_.depth, uint16_t{0});
    }
  }

  void multiply(size_t first, size_t last) const {
    size_t p = 0;
    do {
      const size_t depth = std::min(kPieceDepth, sizes_.depth - p);
      for (size_t panel = first; panel < last; ++panel) {
        float* const acc = sums_ + (panel - first) * sizes_.rows * nr_;
        multiply_piece(panel, p, depth, acc);
        if (p + depth >= sizes_.depth)
          finish_f32(plan_, block_, 0, block_.m, panel * nr_, nr_, acc, nr_);
      }
      p += depth;
    } while (p < sizes_.depth);
  }

  void multiply_piece(size_t panel, size_t p, size_t depth, float* acc) const {
    const auto* const packed = static_cast<const uint16_t*>(plan_.packed);
    const size_t mr = static_cast<size_t>(kernel_.pairs_mr);
    GemmBf16PairsParams params = {};
    params.k = depth;
    params.lhs_stride = sizes_.depth;
    params.rhs = packed + panel * gemm_panel_stride(kernel_, plan_.k) + p * nr_;
    params.accumulate = p > 0;
    for (size_t i = 0; i < block_.m; i += mr) {
      params.m = std::min(mr, block_.m - i);
      params.lhs = rounded_ + i * sizes_.depth + p;
      params.dst = acc + i * nr_;
      kernel_.pairs(params);
    }
  }

  const GemmF32Plan& plan_;
  const GemmF32Block& block_;
  const GemmBf16KernelInfo& kernel_;
  const size_t nr_;
  const Sizes sizes_;
  uint16_t* const rounded_;
  float* const sums_;
};

}  // namespace

void gemm_bf16_pairs_block(const GemmF32Plan& plan, const GemmF32Block& block) {
  const TileScope tiles(plan.bf16->hold_tiles);
  Block(plan, block).run();
}

size_t gemm_bf16_partial(const GemmBf16KernelInfo& kernel, const GemmGrid& grid, size_t k) {
  const Sizes sizes(kernel, grid.rows_per_chunk, k);
  // The last chunk may have fewer rows, and then keep more panels: within the same bound.
  const size_t panel = sizes.rows * static_cast<size_t>(kernel.nr);
  const size_t sums = k <= kPieceDepth ? panel : std::max(panel, kPartialFloats);
  return sizes.rounded_floats() + sums;
}

}  // namespace lepton
