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

void gemm_f32_panel(const GemmF32KernelInfo& kernel, size_t k, size_t rows, const float* lhs,
                    size_t lhs_stride, const float* panel, float* acc) {
  PanelProduct product = {};
  product.mr = kernel.mr;
  product.kr = 1;
  product.width = kernel.nr;
  product.element = sizeof(float);
  product.k = k;
  product.rows = rows;
  product.lhs = lhs;
  product.lhs_stride = lhs_stride;
  product.panel = panel;
  multiply_panel<GemmF32Params>(kernel.run, product, acc);
}

namespace {

// A block of one row: as many panels a call as the kernel takes.
void gemv_f32_block(const GemvF32KernelInfo& kernel, const GemmF32Plan& plan,
                    const GemmF32Block& block) {
  alignas(kCacheLine) float acc[kMaxMr * kMaxNr];
  const size_t nr = kernel.nr;
  GemvF32Params params = {};
  params.k = plan.k;
  params.lhs = block.rows;
  params.panel_stride = gemm_panel_stride(*plan.kernel, plan.k);
  params.dst = acc;
  EpilogueF32Params out = {};
  out.m = 1;
  out.acc = acc;
  out.min = plan.min;
  out.max = plan.max;
  for (size_t panel = block.first; panel < block.last; panel += params.panels) {
    const size_t j = panel * nr;
    params.panels = std::min<size_t>(kernel.panels, block.last - panel);
    params.rhs = plan.packed + panel * params.panel_stride;
    kernel.run(params);
    out.n = std::min(params.panels * nr, plan.n - j);
    out.bias = plan.bias == nullptr ? nullptr : plan.bias + j;
    out.residual = block.residual == nullptr ? nullptr : block.residual + j;
    out.dst = block.dst + j;
    plan.epilogue(out);
  }
}

}  // namespace

void gemm_f32_block(const GemmF32Plan& plan, const GemmF32Block& block) {
  if (block.m == 1)
    if (const GemvF32KernelInfo* gemv = find_gemv_f32(*plan.kernel))
      return gemv_f32_block(*gemv, plan, block);
  alignas(kCacheLine) float acc[kMaxMr * kMaxNr];
  const size_t nr = plan.kernel->nr;
  const size_t step = accumulator_rows(plan.kernel->mr);
  const size_t panel_stride = gemm_panel_stride(*plan.kernel, plan.k);
  for (size_t panel = block.first; panel < block.last; ++panel) {
    const size_t j = panel * nr;
    EpilogueF32Params out = {};
    out.n = std::min(nr, plan.n - j);
    out.acc = acc;
    out.acc_stride = nr;
    out.bias = plan.bias == nullptr ? nullptr : plan.bias + j;
    out.residual_stride = block.residual_stride;
    out.min = plan.min;
    out.max = plan.max;
    out.dst_stride = block.dst_stride;
    for (size_t i = 0; i < block.m; i += step) {
      out.m = std::min(step, block.m - i);
      gemm_f32_panel(*plan.kernel, plan.k, out.m, block.rows + i * block.row_stride,
                     block.row_stride, plan.packed + panel * panel_stride, acc);
      if (block.residual != nullptr) out.residual = block.residual + i * block.residual_stride + j;
      out.dst = block.dst + i * block.dst_stride + j;
      plan.epilogue(out);
    }
  }
}

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
