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
// costs less than handing it to another thread.
constexpr size_t kChunksPerThread = 4;
constexpr size_t kMinChunkWork = 32 * 1024;

}  // namespace

GemmChunk GemmGrid::chunk(int64_t i) const {
  const size_t row = static_cast<size_t>(i) / panel_chunks * rows_per_chunk;
  const size_t first = static_cast<size_t>(i) % panel_chunks * panels_per_chunk;
  return {row, std::min(rows_per_chunk, m - row), first,
          std::min(first + panels_per_chunk, panels)};
}

GemmGrid gemm_grid(size_t m, size_t panels, int mr, size_t row_bytes, int threads) {
  if (m == 0 || panels == 0) return {m, panels, 1, 1, 0, 0};
  const size_t tile = mr;
  row_bytes = std::max<size_t>(row_bytes, 1);
  const size_t fitting = std::min(kRowBlockBytes / row_bytes, kMaxRowsPerChunk);
  const size_t group = accumulator_rows(tile);
  size_t rows = std::max(group, fitting / group * group);
  size_t wanted = 1;
  if (threads > 1) {
    const size_t affordable = std::max<size_t>(m * panels * row_bytes / kMinChunkWork, 1);
    wanted = std::min(affordable, kChunksPerThread * static_cast<size_t>(threads));
    // Fewer rows than this and a panel is loaded for too little work.
    rows = std::max(group, std::min(rows, round_up(ceil_div(m, wanted), tile)));
  }
  const size_t row_chunks = ceil_div(m, rows);
  rows = round_up(ceil_div(m, row_chunks), tile);  // even blocks instead of a short last one
  GemmGrid grid = {m, panels, rows, panels, ceil_div(m, rows), 1};
  if (grid.row_chunks < wanted) {
    const size_t ranges = std::min(panels, ceil_div(wanted, grid.row_chunks));
    grid.panels_per_chunk = ceil_div(panels, ranges);
    grid.panel_chunks = ceil_div(panels, grid.panels_per_chunk);
  }
  return grid;
}

}  // namespace lepton
