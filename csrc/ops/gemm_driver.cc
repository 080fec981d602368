#include "ops/gemm_driver.h"

#include <algorithm>

#include "ops/op.h"

namespace lepton {
namespace {

// Half of a second-level cache of 512 KB: the rest is for the panels that pass by.
constexpr size_t kRowBlockBytes = 256 * 1024;
// Half of a first-level cache of 32 KB: the piece of a panel that all rows of an accumulator block
// use.
constexpr size_t kPanelPieceBytes = 16 * 1024;
constexpr size_t kMaxRowsPerChunk = 192;
// Rows that one epilogue call takes: several register tiles, still small against L1.
constexpr size_t kAccumulatorRows = 24;
// Chunks per thread that even out unequal speeds, and the row bytes × panels below which a chunk
// costs less than handing it to another thread.
constexpr size_t kChunksPerThread = 4;
constexpr size_t kMinChunkWork = 32 * 1024;

size_t accumulator_rows(size_t mr) {
  return mr >= kAccumulatorRows ? mr : kAccumulatorRows / mr * mr;
}

// Fills acc[rows][nr] with one panel's product. Where the panel is larger than its share of L1 and
// several register tiles want it, k is cut, and every tile uses one piece before the next is
// loaded.
template <typename Params, typename Kernel, typename Element, typename Accumulator>
void multiply_panel(const Kernel& kernel, size_t kr, size_t k, size_t rows, const Element* lhs,
                    size_t lhs_stride, const Element* panel, Accumulator* acc) {
  const size_t mr = kernel.mr;
  const size_t nr = kernel.nr;
  const size_t pieces = rows > mr ? ceil_div(k * nr * sizeof(Element), kPanelPieceBytes) : 1;
  const size_t depth = pieces > 1 ? round_up(ceil_div(k, pieces), kr) : k;
  size_t p = 0;
  do {
    for (size_t i = 0; i < rows; i += mr) {
      Params params = {};
      params.m = std::min(mr, rows - i);
      params.k = std::min(depth, k - p);
      params.lhs = lhs + i * lhs_stride + p;
      params.lhs_stride = lhs_stride;
      params.rhs = panel + p * nr;
      params.dst = acc + i * nr;
      params.accumulate = p > 0;
      kernel.run(params);
    }
    p += depth;
  } while (p < k);
}

}  // namespace

void gemm_f32_panel(const GemmF32KernelInfo& kernel, size_t k, size_t rows, const float* lhs,
                    size_t lhs_stride, const float* panel, float* acc) {
  multiply_panel<GemmF32Params>(kernel, 1, k, rows, lhs, lhs_stride, panel, acc);
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
      multiply_panel<GemmF32Params>(*plan.kernel, 1, plan.k, out.m,
                                    block.rows + i * block.row_stride, block.row_stride,
                                    plan.packed + panel * panel_stride, acc);
      if (block.residual != nullptr) out.residual = block.residual + i * block.residual_stride + j;
      out.dst = block.dst + i * block.dst_stride + j;
      plan.epilogue(out);
    }
  }
}

void gemm_s8_block(const GemmS8Plan& plan, const GemmS8Block& block) {
  alignas(kCacheLine) int32_t acc[kMaxMr * kMaxNr];
  const size_t nr = plan.kernel->nr;
  const size_t k = gemm_k_padded(*plan.kernel, plan.k);
  const size_t step = accumulator_rows(plan.kernel->mr);
  const size_t panel_stride = gemm_panel_stride(*plan.kernel, plan.k);
  const auto* const residual = static_cast<const uint8_t*>(block.residual);
  auto* const dst = static_cast<uint8_t*>(block.dst);
  for (size_t panel = block.first; panel < block.last; ++panel) {
    const size_t j = panel * nr;
    EpilogueS8Params out = {};
    out.n = std::min(nr, plan.n - j);
    out.acc = acc;
    out.acc_stride = nr;
    out.bias = plan.bias == nullptr ? nullptr : plan.bias + j;
    out.scale = plan.scale == nullptr ? nullptr : plan.scale + j;
    out.residual_stride = block.residual_stride;
    out.r_signed = plan.r_signed;
    out.requantize = plan.requantize;
    out.min = plan.min;
    out.max = plan.max;
    out.dst_stride = block.dst_stride;
    for (size_t i = 0; i < block.m; i += step) {
      out.m = std::min(step, block.m - i);
      multiply_panel<GemmS8Params>(*plan.kernel, plan.kernel->kr, k, out.m,
                                   block.rows + i * block.row_stride, block.row_stride,
                                   plan.packed + panel * panel_stride, acc);
      if (residual != nullptr) out.residual = residual + i * block.residual_stride + j;
      out.dst = dst + (i * block.dst_stride + j) * plan.dst_size;
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
