#include "ops/gemm_driver.h"

#include <algorithm>

#include "ops/gemm_panel.h"
#include "ops/op.h"

namespace lepton {
namespace {

// Half of a second-level cache of 512 KB: the rest is for the panels that pass by.
constexpr size_t kRowBlockBytes = 256 * 1024;
constexpr size_t kMaxRowsPerChunk = 192;
// Chunks per thread that even out unequal speeds, and the row bytes × panels below which a chunk
// costs less than a share of handing the product to several threads.
constexpr size_t kChunksPerThread = 4;
constexpr size_t kMinChunkWork = 8 * 1024;
// What it costs to fetch a panel, in rows multiplied by it, and to begin a chunk.
constexpr size_t kPanelRows = 8;
constexpr size_t kChunkWork = 512;

// The work of the thread with the most chunks: products, panels fetched, rows prepared.
size_t longest_share(const GemmGrid& grid, size_t row_bytes, size_t threads) {
  const size_t rows = grid.rows_per_chunk;
  const size_t chunk = grid.panels_per_chunk * (rows + kPanelRows) + rows / 2;
  const size_t chunks = ceil_div(grid.row_chunks * grid.panel_chunks, threads);
  return chunks * (chunk * row_bytes + kChunkWork);
}

// Blocks of at most `rows` rows, all but the last equal, by `ranges` ranges of panels.
GemmGrid even_grid(size_t m, size_t panels, size_t tile, size_t rows, size_t ranges) {
  rows = round_up(ceil_div(m, ceil_div(m, rows)), tile);
  const size_t range = ceil_div(panels, std::min(ranges, panels));
  return {m, panels, rows, range, ceil_div(m, rows), ceil_div(panels, range)};
}

}  // namespace

GemmChunk GemmGrid::chunk(int64_t i) const {
  const size_t row = static_cast<size_t>(i) / panel_chunks * rows_per_chunk;
  const size_t first = static_cast<size_t>(i) % panel_chunks * panels_per_chunk;
  return {row, std::min(rows_per_chunk, m - row), first,
          std::min(first + panels_per_chunk, panels)};
}

GemmGrid gemm_grid(size_t m, size_t panels, int mr, size_t row_bytes, int threads,
                   size_t kept_bytes) {
  if (m == 0 || panels == 0) return {m, panels, 1, 1, 0, 0};
  const size_t tile = mr, workers = std::max(threads, 1);
  row_bytes = std::max<size_t>(row_bytes, 1);
  const size_t kept = kept_bytes == 0 ? row_bytes : kept_bytes;
  const size_t fitting = std::min(kRowBlockBytes / kept, kMaxRowsPerChunk);
  const size_t group = accumulator_rows(tile);
  const size_t rows = std::max(group, fitting / group * group);
  GemmGrid best = even_grid(m, panels, tile, rows, 1);
  if (workers == 1) return best;
  const size_t work = panels * (m + kPanelRows) * row_bytes;
  const size_t most = std::min(work / kMinChunkWork, kChunksPerThread * workers);
  // Fewer rows a block, or the same rows against fewer panels: what ends first.
  const size_t blocks = best.row_chunks;
  for (size_t wanted = workers; wanted <= most; wanted += workers) {
    const size_t fewer = std::min(rows, round_up(ceil_div(m, wanted), tile));
    for (const GemmGrid& grid : {even_grid(m, panels, tile, fewer, 1),
                                 even_grid(m, panels, tile, rows, ceil_div(wanted, blocks))})
      if (longest_share(grid, row_bytes, workers) < longest_share(best, row_bytes, workers))
        best = grid;
  }
  return best;
}

}  // namespace lepton
