// The float32 half of gemm_driver.h.
//
// A product with few k goes panel by panel: all rows of the block pass by one panel in L1, and its
// sums go straight to the epilogue, in registers if the kernel has a form that does (`fused`). With
// more k than a panel's share of L1 holds, and enough rows, k is cut outermost: a piece of every
// panel in turn passes by the same piece of the rows, which stays in L2, while the sums of a range
// of panels stay in `partial`; so every panel is read once a block however deep it is. Weights
// mostly come from memory, once each: while one piece is multiplied, the next one is brought into
// L2.
#include <algorithm>

#include "ops/gemm_driver.h"
#include "ops/gemm_panel.h"
#include "ops/gemm_sparse.h"

namespace lepton {
namespace {

// Rows of a panel in L1 at once: 16 KB of sixteen columns.
constexpr size_t kPieceDepth = 256;
// Rows of a block whose k is cut: a piece of them is 144 KB of L2, ...
constexpr size_t kRowsInPieces = 144;
// ... and their sums over a range of panels as much again.
constexpr size_t kPartialFloats = 36 * 1024;
// Gathered rows of such a block.
constexpr size_t kGatheredBytes = 1024 * 1024;
// Register tiles of rows that are worth sharing out.
constexpr size_t kTilesPerWorker = 8;
// Chunks per thread, and multiply-accumulates below which a chunk costs less than handing it over.
constexpr size_t kChunksPerThread = 2, kMinChunkProducts = 128 * 1024;

// k in even pieces.
size_t piece_depth(size_t k) {
  return k <= kPieceDepth ? k : ceil_div(k, ceil_div(k, kPieceDepth));
}

// Floats of one panel's sums, and how many panels' sums are kept.
size_t panel_sums(const GemmF32KernelInfo& kernel, size_t rows) {
  return round_up(rows, kernel.mr) * kernel.nr;
}
size_t panels_in_partial(const GemmF32KernelInfo& kernel, size_t rows) {
  return std::max<size_t>(1, kPartialFloats / panel_sums(kernel, rows));
}

// Rows of lhs from their first element of the piece on.
struct Rows {
  size_t m;
  const float* at;
  size_t stride;
};
struct Piece {
  const float* rhs;
  size_t depth;
  bool accumulate;
  const float* next;  // the piece that will be read after this one, or null
};

// Rows of the next register tile: a whole one, but the last two share what is left where the last
// would be small, since a tile of one row takes as long as one of four.
size_t tile_rows(size_t left, size_t mr) {
  if (left <= mr) return left;
  return left < mr + ceil_div(mr, 2) ? ceil_div(left, 2) : mr;
}
// Rows of the next epilogue, likewise.
size_t group_rows(size_t left, size_t mr) {
  const size_t group = accumulator_rows(mr);
  return left < group + ceil_div(mr, 2) ? left : group;
}

// acc[rows][nr] of one piece; every register tile fetches its share of the next one.
void multiply_piece(const GemmF32KernelInfo& kernel, const Rows& rows, const Piece& piece,
                    float* acc) {
  const size_t nr = kernel.nr, share = ceil_div(nr, ceil_div(rows.m, kernel.mr));
  size_t fetched = 0;
  GemmF32Params params = {};
  for (size_t i = 0; i < rows.m; i += params.m, fetched += share) {
    params.m = tile_rows(rows.m - i, kernel.mr);
    params.k = piece.depth;
    params.lhs = rows.at + i * rows.stride;
    params.lhs_stride = rows.stride;
    params.rhs = piece.rhs;
    params.dst = acc + i * nr;
    params.accumulate = piece.accumulate;
    const bool fetches = piece.next != nullptr && fetched < nr;
    params.prefetch = fetches ? piece.next + fetched * piece.depth : nullptr;
    params.prefetch_step = share;
    kernel.run(params);
  }
}

// One panel in all its pieces.
void multiply_pieces(const GemmF32KernelInfo& kernel, size_t k, const Rows& rows,
                     const float* panel, const float* next, float* acc) {
  const size_t nr = kernel.nr;
  const size_t depth = rows.m > static_cast<size_t>(kernel.mr) ? piece_depth(k) : k;
  size_t p = 0;
  do {
    Piece piece = {panel + p * nr, std::min(depth, k - p), p > 0, next};
    if (p + depth < k) piece.next = panel + (p + depth) * nr;
    multiply_piece(kernel, {rows.m, rows.at + p, rows.stride}, piece, acc);
    p += depth;
  } while (p < k);
}

class Block {
 public:
  Block(const GemmF32Plan& plan, const GemmF32Block& block)
      : plan_(plan),
        block_(block),
        kernel_(*plan.kernel),
        panel_stride_(gemm_panel_stride(kernel_, plan.k)) {}

  void panel_by_panel() const {
    alignas(kCacheLine) float acc[(kMaxMr + kMaxMr / 2) * kMaxNr];
    for (size_t panel = block_.first; panel < block_.last; ++panel) {
      const float* const next = panel + 1 < block_.last ? at(panel + 1) : nullptr;
      size_t m = 0;
      for (size_t i = 0; i < block_.m; i += m) {
        m = group_rows(block_.m - i, kernel_.mr);
        multiply_pieces(kernel_, plan_.k,
                        {m, block_.rows + i * block_.row_stride, block_.row_stride}, at(panel),
                        i + m < block_.m ? nullptr : next, acc);
        finish(panel, i, m, acc);
      }
    }
  }

  // Few k: every register tile is finished where it was made.
  void fused(const GemmF32FusedKernelInfo& fused) const {
    GemmF32FusedParams params = {};
    params.k = plan_.k;
    params.lhs_stride = block_.row_stride;
    params.residual_stride = block_.residual_stride;
    params.min = plan_.min;
    params.max = plan_.max;
    params.dst_stride = block_.dst_stride;
    const size_t mr = fused.mr, nr = fused.nr;
    params.prefetch_step = ceil_div(nr, ceil_div(block_.m, mr));
    for (size_t panel = block_.first; panel < block_.last; ++panel) {
      const size_t j = panel * nr;
      const float* const next = panel + 1 < block_.last ? at(panel + 1) : nullptr;
      size_t fetched = 0;
      params.n = std::min(nr, plan_.n - j);
      params.rhs = at(panel);
      params.bias = plan_.bias == nullptr ? nullptr : plan_.bias + j;
      for (size_t i = 0; i < block_.m; i += params.m, fetched += params.prefetch_step) {
        params.m = tile_rows(block_.m - i, mr);
        params.lhs = block_.rows + i * block_.row_stride;
        params.prefetch = next != nullptr && fetched < nr ? next + fetched * params.k : nullptr;
        if (block_.residual != nullptr)
          params.residual = block_.residual + i * block_.residual_stride + j;
        params.dst = block_.dst + i * block_.dst_stride + j;
        fused.run(params);
      }
    }
  }

  void piece_by_piece() const {
    const size_t range = panels_in_partial(kernel_, block_.m);
    for (size_t first = block_.first; first < block_.last; first += range)
      pieces_of(first, std::min(first + range, block_.last));
  }

  // One row: as many panels a call as the kernel takes.
  void single_row(const GemvF32KernelInfo& gemv) const {
    alignas(kCacheLine) float acc[kMaxMr * kMaxNr];
    GemvF32Params params = {};
    params.k = plan_.k;
    params.lhs = block_.rows;
    params.panel_stride = panel_stride_;
    params.dst = acc;
    for (size_t panel = block_.first; panel < block_.last; panel += params.panels) {
      params.panels = std::min<size_t>(gemv.panels, block_.last - panel);
      params.rhs = at(panel);
      gemv.run(params);
      finish(panel, 0, 1, acc, params.panels);
    }
  }

 private:
  const float* at(size_t panel) const { return plan_.packed + panel * panel_stride_; }

  // Panels [first, last) with k outermost.
  void pieces_of(size_t first, size_t last) const {
    const size_t depth = piece_depth(plan_.k), nr = kernel_.nr;
    const size_t sums = panel_sums(kernel_, block_.m);
    for (size_t p = 0; p < plan_.k; p += depth) {
      const Rows rows = {block_.m, block_.rows + p, block_.row_stride};
      for (size_t panel = first; panel < last; ++panel) {
        float* const acc = block_.partial + (panel - first) * sums;
        Piece piece = {at(panel) + p * nr, std::min(depth, plan_.k - p), p > 0, nullptr};
        if (panel + 1 < last)
          piece.next = piece.rhs + panel_stride_;
        else if (p + depth < plan_.k)
          piece.next = at(first) + (p + depth) * nr;
        else if (last < block_.last)
          piece.next = at(last);
        multiply_piece(kernel_, rows, piece, acc);
        if (p + depth >= plan_.k) finish(panel, 0, block_.m, acc);
      }
    }
  }

  // The epilogue of m rows from row i on and of `panels` panels, whose sums lie side by side if
  // there are several.
  void finish(size_t panel, size_t i, size_t m, const float* acc, size_t panels = 1) const {
    const size_t j = panel * kernel_.nr;
    EpilogueF32Params out = {};
    out.m = m;
    out.n = std::min(panels * kernel_.nr, plan_.n - j);
    out.acc = acc;
    out.acc_stride = kernel_.nr;
    out.bias = plan_.bias == nullptr ? nullptr : plan_.bias + j;
    if (block_.residual != nullptr) out.residual = block_.residual + i * block_.residual_stride + j;
    out.residual_stride = block_.residual_stride;
    out.min = plan_.min;
    out.max = plan_.max;
    out.dst = block_.dst + i * block_.dst_stride + j;
    out.dst_stride = block_.dst_stride;
    plan_.epilogue(out);
  }

  const GemmF32Plan& plan_;
  const GemmF32Block& block_;
  const GemmF32KernelInfo& kernel_;
  const size_t panel_stride_;
};

}  // namespace

void gemm_f32_panel(const GemmF32KernelInfo& kernel, size_t k, size_t rows, const float* lhs,
                    size_t lhs_stride, const float* panel, const float* next, float* acc) {
  multiply_pieces(kernel, k, {rows, lhs, lhs_stride}, panel, next, acc);
}

void gemm_f32_block(const GemmF32Plan& plan, const GemmF32Block& block) {
  if (plan.sparse != nullptr) return gemm_f32_sparse_block(plan, block);
  const Block b(plan, block);
  const GemvF32KernelInfo* const gemv = block.m == 1 ? find_gemv_f32(*plan.kernel) : nullptr;
  const GemmF32FusedKernelInfo* const fused = find_gemm_f32_fused(*plan.kernel);
  if (gemv != nullptr)
    b.single_row(*gemv);
  else if (fused != nullptr && plan.k <= kPieceDepth)
    b.fused(*fused);
  else if (block.partial != nullptr && block.m > accumulator_rows(plan.kernel->mr))
    b.piece_by_piece();
  else
    b.panel_by_panel();
}

GemmGrid gemm_f32_grid(const GemmF32KernelInfo& kernel, size_t m, size_t n, size_t k, bool gathered,
                       int threads) {
  const size_t panels = gemm_panels(kernel, n), tile = kernel.mr;
  if (k <= kPieceDepth || m == 0 || panels == 0)
    return gemm_grid(m, panels, kernel.mr, k * sizeof(float), threads);
  const size_t group = accumulator_rows(tile), workers = std::max(1, threads);
  size_t rows = kRowsInPieces;
  if (gathered) {
    rows = std::clamp(kGatheredBytes / (k * sizeof(float)), group, rows);
    // Every range of panels gathers the same rows again; yet few rows cannot be shared out evenly.
    if (threads > 1 && m >= kTilesPerWorker * tile * workers)
      rows = std::clamp(round_up(ceil_div(m, workers), tile), group, rows);
  }
  rows = round_up(ceil_div(m, ceil_div(m, rows)), tile);
  const size_t blocks = ceil_div(m, rows);
  const size_t wanted = threads > 1 ? std::min((gathered ? 1 : kChunksPerThread) * workers,
                                               m * n * k / kMinChunkProducts + 1)
                                    : 1;
  const size_t ranges = blocks < wanted ? std::min(panels, ceil_div(wanted, blocks)) : 1;
  const size_t range = ceil_div(panels, ranges);
  return {m, panels, rows, range, blocks, ceil_div(panels, range)};
}

size_t gemm_f32_partial(const GemmF32KernelInfo& kernel, const GemmGrid& grid, size_t k) {
  if (k <= kPieceDepth || grid.rows_per_chunk <= accumulator_rows(kernel.mr)) return 0;
  // The last chunk may have fewer rows, and then keep more panels: within the same bound.
  const size_t panel = panel_sums(kernel, grid.rows_per_chunk);
  return std::min(grid.panels_per_chunk * panel, std::max(panel, kPartialFloats));
}

}  // namespace lepton
