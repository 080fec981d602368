// The float32 half of gemm_driver.h.
//
// A product with few k goes panel by panel: all rows of the block pass by one panel in L1, and its
// sums go straight to the epilogue, in registers if the kernel has a form that does (`fused`). With
// more k than a panel's share of L1 holds, and enough rows, k is cut outermost: a piece of every
// panel in turn passes by the same piece of the rows, which stays in L2, while the sums of a range
// of panels stay in `partial`; so every panel is read once a block however deep it is. Weights
// mostly come from memory, once each: while one piece is multiplied, the next one is brought into
// L2.
//
// Weights kept as bfloat16 take the same ways: each piece of a panel becomes floats in L1 just
// before it is multiplied. Few rows, which would not be worth that, go to kernels of gemm_bf16; all
// others go there, too, where those multiply bfloat16 by bfloat16 (gemm_bf16_driver.cc).
#include <algorithm>

#include "ops/gemm_bf16_kernels.h"
#include "ops/gemm_driver.h"
#include "ops/gemm_f32_finish.h"
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

// Floats of a piece that is unpacked, less deep: written and read, it competes with the rows.
constexpr size_t kUnpackedFloats = 4 * 1024;

// k in even pieces of at most `most` rows, each an even number of them.
size_t piece_depth(size_t k, size_t most = kPieceDepth) {
  return k <= most ? k : round_up(ceil_div(k, ceil_div(k, most)), 2);
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
// A piece of a panel as it lies in the operand.
struct Piece {
  const std::byte* at;
  size_t depth;
  bool accumulate;
  const std::byte* next;  // the piece that will be read after this one, or null
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

// The right operand as it lies in memory.
struct Operand {
  const GemmBf16KernelInfo* bf16;  // null: floats
  size_t nr;

  size_t element() const { return bf16 == nullptr ? sizeof(float) : sizeof(uint16_t); }
  size_t row_bytes() const { return nr * element(); }
  size_t depth() const { return bf16 == nullptr ? kPieceDepth : kUnpackedFloats / nr; }
  // `depth` rows from `at` on, in `room` where they are no floats yet.
  const float* floats(const std::byte* at, size_t depth, float* room) const {
    if (bf16 == nullptr) return reinterpret_cast<const float*>(at);
    bf16->unpack(reinterpret_cast<const uint16_t*>(at), depth, room);
    return room;
  }
};
// Room for an unpacked piece.
struct alignas(kCacheLine) Unpacked {
  float at[kPieceDepth * kMaxNrBf16];
};

// What the register tiles of a block bring into L2: each its share of the lines of what comes next.
class NextPiece {
 public:
  NextPiece(const std::byte* next, size_t row_bytes, size_t depth, size_t tiles)
      : at_(reinterpret_cast<const float*>(next)),
        left_(next == nullptr ? 0 : row_bytes / sizeof(float)),
        depth_(depth),
        share_(ceil_div(row_bytes / sizeof(float), tiles)) {}
  // Sets prefetch and prefetch_step of one tile. Params: of gemm_f32 or its fused form.
  template <typename Params>
  void take(Params* params) {
    params->prefetch = left_ == 0 ? nullptr : at_;
    params->prefetch_step = share_;
    at_ = left_ == 0 ? at_ : at_ + share_ * depth_;
    left_ -= std::min(left_, share_);
  }

 private:
  const float* at_;
  size_t left_, depth_, share_;  // left_, share_: floats for each of the depth's rows
};

// acc[rows][nr] of one piece.
void multiply_piece(const GemmF32KernelInfo& kernel, const Operand& rhs, const Rows& rows,
                    const Piece& piece, float* acc) {
  Unpacked room;
  NextPiece next(piece.next, rhs.row_bytes(), piece.depth, ceil_div(rows.m, kernel.mr));
  GemmF32Params params = {};
  params.rhs = rhs.floats(piece.at, piece.depth, room.at);
  params.k = piece.depth;
  params.lhs_stride = rows.stride;
  params.accumulate = piece.accumulate;
  for (size_t i = 0; i < rows.m; i += params.m) {
    params.m = tile_rows(rows.m - i, kernel.mr);
    params.lhs = rows.at + i * rows.stride;
    params.dst = acc + i * rhs.nr;
    next.take(&params);
    kernel.run(params);
  }
}

// One panel in all its pieces.
void multiply_pieces(const GemmF32KernelInfo& kernel, const Operand& rhs, size_t k,
                     const Rows& rows, const std::byte* panel, const std::byte* next, float* acc) {
  const bool whole = rhs.bf16 == nullptr && rows.m <= static_cast<size_t>(kernel.mr);
  const size_t depth = whole ? k : piece_depth(k, rhs.depth());
  size_t p = 0;
  do {
    Piece piece = {panel + p * rhs.row_bytes(), std::min(depth, k - p), p > 0, next};
    if (p + depth < k) piece.next = panel + (p + depth) * rhs.row_bytes();
    multiply_piece(kernel, rhs, {rows.m, rows.at + p, rows.stride}, piece, acc);
    p += depth;
  } while (p < k);
}

class Block {
 public:
  Block(const GemmF32Plan& plan, const GemmF32Block& block)
      : plan_(plan),
        block_(block),
        kernel_(*plan.kernel),
        rhs_{plan.bf16, static_cast<size_t>(plan.kernel->nr)},
        panel_stride_(plan.bf16 == nullptr ? gemm_panel_stride(kernel_, plan.k)
                                           : gemm_panel_stride(*plan.bf16, plan.k)) {}

  void panel_by_panel() const {
    alignas(kCacheLine) float acc[(kMaxMr + kMaxMr / 2) * kMaxNr];
    for (size_t panel = block_.first; panel < block_.last; ++panel) {
      const std::byte* const next = panel + 1 < block_.last ? at(panel + 1) : nullptr;
      size_t m = 0;
      for (size_t i = 0; i < block_.m; i += m) {
        m = group_rows(block_.m - i, kernel_.mr);
        multiply_pieces(kernel_, rhs_, plan_.k,
                        {m, block_.rows + i * block_.row_stride, block_.row_stride}, at(panel),
                        i + m < block_.m ? nullptr : next, acc);
        finish(panel, i, m, acc);
      }
    }
  }

  // Few k: every register tile is finished where it was made.
  void fused(const GemmF32FusedKernelInfo& fused) const {
    Unpacked room;
    GemmF32FusedParams params = {};
    params.k = plan_.k;
    params.lhs_stride = block_.row_stride;
    params.residual_stride = block_.residual_stride;
    params.min = plan_.min;
    params.max = plan_.max;
    params.dst_stride = block_.dst_stride;
    const size_t mr = fused.mr, nr = fused.nr;
    for (size_t panel = block_.first; panel < block_.last; ++panel) {
      const size_t j = panel * nr;
      NextPiece next(panel + 1 < block_.last ? at(panel + 1) : nullptr, rhs_.row_bytes(), plan_.k,
                     ceil_div(block_.m, mr));
      params.n = std::min(nr, plan_.n - j);
      params.rhs = rhs_.floats(at(panel), plan_.k, room.at);
      params.bias = plan_.bias == nullptr ? nullptr : plan_.bias + j;
      for (size_t i = 0; i < block_.m; i += params.m) {
        params.m = tile_rows(block_.m - i, mr);
        params.lhs = block_.rows + i * block_.row_stride;
        next.take(&params);
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
      params.rhs = reinterpret_cast<const float*>(at(panel));
      gemv.run(params);
      finish(panel, 0, 1, acc, params.panels);
    }
  }

  // One register tile of rows by weights kept as bfloat16; a single row likewise.
  void few_rows(const GemmBf16KernelInfo& few) const {
    alignas(kCacheLine) float acc[kMaxMr * kMaxNr];
    const size_t most = block_.m == 1 ? static_cast<size_t>(few.panels) : 1;
    GemmBf16Params params = {};
    params.m = block_.m;
    params.k = plan_.k;
    params.lhs = block_.rows;
    params.lhs_stride = block_.row_stride;
    params.panel_stride = panel_stride_;
    params.dst = acc;
    for (size_t panel = block_.first; panel < block_.last; panel += params.panels) {
      params.panels = std::min(most, block_.last - panel);
      params.rhs = reinterpret_cast<const uint16_t*>(at(panel));
      few.run(params);
      finish(panel, 0, params.m, acc, params.panels);
    }
  }

 private:
  const std::byte* at(size_t panel) const {
    return static_cast<const std::byte*>(plan_.packed) + panel * panel_stride_ * rhs_.element();
  }

  // Panels [first, last) with k outermost.
  void pieces_of(size_t first, size_t last) const {
    const size_t depth = piece_depth(plan_.k, rhs_.depth()), row_bytes = rhs_.row_bytes();
    const size_t sums = panel_sums(kernel_, block_.m);
    for (size_t p = 0; p < plan_.k; p += depth) {
      const Rows rows = {block_.m, block_.rows + p, block_.row_stride};
      for (size_t panel = first; panel < last; ++panel) {
        float* const acc = block_.partial + (panel - first) * sums;
        Piece piece = {at(panel) + p * row_bytes, std::min(depth, plan_.k - p), p > 0, nullptr};
        if (panel + 1 < last)
          piece.next = at(panel + 1) + p * row_bytes;
        else if (p + depth < plan_.k)
          piece.next = at(first) + (p + depth) * row_bytes;
        else if (last < block_.last)
          piece.next = at(last);
        multiply_piece(kernel_, rhs_, rows, piece, acc);
        if (p + depth >= plan_.k) finish(panel, 0, block_.m, acc);
      }
    }
  }

  // The epilogue of m rows from row i on and of `panels` panels, whose sums lie side by side if
  // there are several.
  void finish(size_t panel, size_t i, size_t m, const float* acc, size_t panels = 1) const {
    const size_t nr = kernel_.nr;
    finish_f32(plan_, block_, i, m, panel * nr, panels * nr, acc, nr);
  }

  const GemmF32Plan& plan_;
  const GemmF32Block& block_;
  const GemmF32KernelInfo& kernel_;
  const Operand rhs_;
  const size_t panel_stride_;  // in elements
};

}  // namespace

void gemm_f32_panel(const GemmF32KernelInfo& kernel, size_t k, size_t rows, const float* lhs,
                    size_t lhs_stride, const float* panel, const float* next, float* acc) {
  multiply_pieces(kernel, {nullptr, static_cast<size_t>(kernel.nr)}, k, {rows, lhs, lhs_stride},
                  reinterpret_cast<const std::byte*>(panel),
                  reinterpret_cast<const std::byte*>(next), acc);
}

void gemm_f32_block(const GemmF32Plan& plan, const GemmF32Block& block) {
  if (plan.sparse != nullptr) return gemm_f32_sparse_block(plan, block);
  if (plan.rounds_rows) return gemm_bf16_pairs_block(plan, block);
  const Block b(plan, block);
  if (plan.bf16 != nullptr && block.m <= static_cast<size_t>(plan.bf16->mr))
    return b.few_rows(*plan.bf16);
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
