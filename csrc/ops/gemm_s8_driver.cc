// The blocks of 8-bit products: see gemm_driver.h.
#include <algorithm>

#include "ops/gemm_driver.h"
#include "ops/gemm_panel.h"
#include "ops/gemm_sparse.h"

namespace lepton {
namespace {

// The bias of a panel with the zero point of the rows taken off: plan.bias where there is nothing
// to take.
const int32_t* corrected_bias(const GemmS8Plan& plan, const GemmS8Panel& panel, int32_t zero_point,
                              int32_t* room) {
  const int32_t* const bias = plan.bias == nullptr ? nullptr : plan.bias + panel.column;
  if (zero_point == 0 || panel.sums == nullptr) return bias;
  for (size_t j = 0; j < panel.columns; ++j) {
    const uint32_t start = bias == nullptr ? 0 : static_cast<uint32_t>(bias[j]);
    const uint32_t off = static_cast<uint32_t>(zero_point) * static_cast<uint32_t>(panel.sums[j]);
    room[j] = static_cast<int32_t>(start - off);
  }
  return room;
}

// Whether panels pass whole and the kernel fetches the next one.
bool streams(const GemmS8Plan& plan, const GemmS8Block& block) {
  return plan.kernel->streams && block.windows == nullptr;
}

PanelProduct product_of(const GemmS8Plan& plan, const GemmS8Block& block,
                        const GemmS8Panel& panel) {
  PanelProduct product = {};
  product.mr = plan.kernel->mr;
  product.kr = plan.kernel->kr;
  product.width = panel.width;
  product.element = gemm_element(*plan.kernel);
  product.k = gemm_k_padded(*plan.kernel, plan.k);
  product.whole_k = plan.kernel->form == GemmS8Form::kU8Runs || streams(plan, block);
  product.lhs_stride = block.row_stride;
  product.panel = panel.values;
  return product;
}

// What will be read after panel p. Behind the last, as much as its product has time for: what is
// ahead of a block may be all weights of a layer. Kernels that stream none take their time, and
// would get it in bursts.
Ahead after_panel(const GemmS8Plan& plan, const GemmS8Block& block, size_t p) {
  if (p + 1 < block.last) return {plan.packed + (p + 1) * plan.panel_stride, plan.panel_stride};
  if (!plan.kernel->streams) return {};
  constexpr size_t kRowsOfTile = 6;  // at the most
  const size_t lines = block.m / kRowsOfTile * (plan.k / kStreamDepth);
  return {block.ahead.at, std::min(block.ahead.bytes, lines * kCacheLine)};
}

// What comes after panel p in shares for the register tiles of this one. A single row has none: it
// only streams weights, and all at once the lines of a panel would be in its way.
Prefetch next_panel(const GemmS8Plan& plan, const GemmS8Block& block, const PanelProduct& product,
                    size_t p) {
  PanelProduct whole = product;
  whole.rows = std::min(block.m, accumulator_rows(product.mr));
  const size_t tiles = ceil_div(block.m, product.mr) * panel_pieces(whole);
  const Ahead next = after_panel(plan, block, p);
  const size_t lines = ceil_div(next.bytes, kCacheLine);
  const size_t share = ceil_div(lines, tiles);
  const size_t steps = streams(plan, block) ? product.k / kStreamDepth : 0;
  const size_t left = std::min(share, steps);
  return {next.at, lines, share - left, left, left == 0 ? 0 : ceil_div(left * kCacheLine, steps)};
}

// Rows [first, first + product.rows) of windows, cut as multiply_panel cuts rows: in pieces of a
// run, or of whole runs.
void multiply_windows(const GemmS8Windows& windows, const PanelProduct& product, size_t first,
                      int32_t* acc) {
  const size_t most =
      product.rows > product.mr ? kPanelPieceBytes / product.width : windows.runs * windows.run;
  const size_t runs = std::clamp<size_t>(most / windows.run, 1, windows.runs);
  const size_t pieces = ceil_div(windows.run, most);
  const size_t depth = round_up(ceil_div(windows.run, pieces), product.kr);
  const auto* const panel = static_cast<const int8_t*>(product.panel);
  for (size_t r = 0; r < windows.runs; r += runs) {
    for (size_t p = 0; p < windows.run; p += depth) {
      for (size_t i = 0; i < product.rows; i += product.mr) {
        product.next->take();
        windows.kernel({std::min(product.mr, product.rows - i), product.width,
                        std::min(runs, windows.runs - r), std::min(depth, windows.run - p),
                        windows.pitch, r * windows.pitch + p, windows.rows + first + i,
                        panel + (r * windows.run + p) * product.width, acc + i * product.width,
                        r + p > 0});
      }
    }
  }
}

EpilogueS8Params epilogue_of(const GemmS8Plan& plan, const GemmS8Block& block,
                             const GemmS8Panel& panel, const int32_t* acc) {
  EpilogueS8Params out = {};
  out.n = panel.columns;
  out.acc = acc;
  out.acc_stride = panel.width;
  out.scale = plan.scale == nullptr ? nullptr : plan.scale + panel.column;
  out.float_bias = plan.float_bias == nullptr ? nullptr : plan.float_bias + panel.column;
  out.residual_stride = block.residual_stride;
  out.r_signed = plan.r_signed;
  out.requantize = plan.requantize;
  out.min = plan.min;
  out.max = plan.max;
  out.dst_stride = block.dst_stride;
  return out;
}

// The kernel that requantises its tiles itself, where the product is one for it: to bytes that are
// rounded once, rows without corrections of their own.
const GemmS8FusedKernelInfo* fused_kernel(const GemmS8Plan& plan, const GemmS8Block& block) {
  const bool adds = block.residual != nullptr, windows = block.windows != nullptr;
  if (plan.dst_size != 1 || (adds && !plan.sums) || block.zero_points != nullptr) return nullptr;
  const GemmS8FusedKernelInfo* const fused = find_gemm_s8_fused(*plan.kernel);
  if (fused == nullptr || (adds && !fused->adds) || (windows && !fused->windows)) return nullptr;
  return fused;
}

void multiply_fused(const GemmS8FusedKernelInfo& kernel, const GemmS8Plan& plan,
                    const GemmS8Block& block) {
  int32_t bias[kMaxNr];
  GemmS8FusedParams params = {};
  params.m = block.m;
  params.k = gemm_k_padded(*plan.kernel, plan.k);
  params.lhs = static_cast<const uint8_t*>(block.rows);
  params.lhs_stride = block.row_stride;
  if (block.windows != nullptr) {
    params.windows = block.windows->rows;
    params.runs = block.windows->runs;
    params.run = block.windows->run;
    params.pitch = block.windows->pitch;
  }
  params.zero_point = plan.requantize.zero_point;
  params.lo = plan.requantize.lo;
  params.hi = plan.requantize.hi;
  params.dst_stride = block.dst_stride;
  params.residual_stride = block.residual_stride;
  params.r_signed = plan.r_signed;
  params.r_scale = plan.requantize.r_scale;
  params.r_zero_point = plan.requantize.r_zero_point;
  const auto* const residual = static_cast<const uint8_t*>(block.residual);
  for (size_t p = block.first; p < block.last; ++p) {
    const GemmS8Panel panel =
        gemm_s8_panel(*plan.kernel, plan.n, plan.packed, plan.panel_stride, p);
    params.n = panel.columns;
    params.width = panel.width;
    params.rhs = reinterpret_cast<const int8_t*>(panel.values);
    const Ahead next = after_panel(plan, block, p);
    params.next = next.at;
    params.next_lines = ceil_div(next.bytes, kCacheLine);
    params.bias = corrected_bias(plan, panel, plan.zero_point, bias);
    params.scale = plan.scale + panel.column;
    params.dst = static_cast<uint8_t*>(block.dst) + panel.column;
    if (residual != nullptr) params.residual = residual + panel.column;
    kernel.run(params);
  }
}

// Columns that one epilogue takes where there is a single row: with little work in each panel,
// calls and what epilogues set up would show.
constexpr size_t kRowAccumulators = size_t{kMaxMr} * kMaxNr;

// The row against panels [first, last), at most kRowAccumulators columns.
void multiply_row(const GemmS8Plan& plan, const GemmS8Block& block, size_t first, size_t last) {
  alignas(kCacheLine) int32_t acc[kRowAccumulators];
  int32_t corrections[kRowAccumulators];  // corrected biases, or the columns' sums
  const bool corrects_rows = block.zero_points != nullptr && reads_u8(plan.kernel->form);
  const GemmS8KernelInfo& kernel = few_rows_gemm_s8(*plan.kernel);
  const TileScope tiles(kernel);
  GemmS8Params params = {};
  params.m = 1;
  params.k = gemm_k_padded(*plan.kernel, plan.k);
  params.lhs = block.rows;
  params.lhs_stride = block.row_stride;
  GemmS8Panel panel = gemm_s8_panel(*plan.kernel, plan.n, plan.packed, plan.panel_stride, first);
  EpilogueS8Params out = epilogue_of(plan, block, panel, acc);
  out.m = 1;
  out.n = 0;
  for (size_t p = first; p < last; ++p, out.n += panel.columns) {
    panel = gemm_s8_panel(*plan.kernel, plan.n, plan.packed, plan.panel_stride, p);
    int32_t* const correction = corrections + out.n;
    if (corrects_rows)
      std::copy(panel.sums, panel.sums + panel.columns, correction);
    else if (p == first)
      out.bias = corrected_bias(plan, panel, plan.zero_point, correction);
    else
      corrected_bias(plan, panel, plan.zero_point, correction);
    params.n = panel.width;
    params.rhs = panel.values;
    params.dst = acc + out.n;
    kernel.run(params);
  }
  const size_t column = first * static_cast<size_t>(plan.kernel->nr);
  if (corrects_rows) {
    out.bias = plan.bias == nullptr ? nullptr : plan.bias + column;
    out.column_sum = corrections;
    out.row_zero_point = block.zero_points;
  }
  out.row_scale = block.row_scale;
  if (block.residual != nullptr)
    out.residual = static_cast<const uint8_t*>(block.residual) + column * plan.dst_size;
  out.dst = static_cast<uint8_t*>(block.dst) + column * plan.dst_size;
  plan.epilogue(out);
}

}  // namespace

void gemm_s8_block(const GemmS8Plan& plan, const GemmS8Block& block) {
  if (plan.sparse != nullptr) return gemm_s8_sparse_block(plan, block);
  if (block.m == 1 && block.windows == nullptr) {
    const size_t step = kRowAccumulators / static_cast<size_t>(plan.kernel->nr);
    for (size_t p = block.first; p < block.last; p += step)
      multiply_row(plan, block, p, std::min(p + step, block.last));
    return;
  }
  if (const GemmS8FusedKernelInfo* const fused = fused_kernel(plan, block))
    return multiply_fused(*fused, plan, block);
  alignas(kCacheLine) int32_t acc[kMaxMr * kMaxNr];
  int32_t bias[kMaxNr];
  const auto* const rows = static_cast<const std::byte*>(block.rows);
  const auto* const residual = static_cast<const uint8_t*>(block.residual);
  auto* const dst = static_cast<uint8_t*>(block.dst);
  const size_t step = accumulator_rows(plan.kernel->mr);
  const GemmS8KernelInfo& few_rows = few_rows_gemm_s8(*plan.kernel);
  const TileScope tiles(block.m < kFewRows ? few_rows : *plan.kernel);
  for (size_t p = block.first; p < block.last; ++p) {
    const GemmS8Panel panel =
        gemm_s8_panel(*plan.kernel, plan.n, plan.packed, plan.panel_stride, p);
    PanelProduct product = product_of(plan, block, panel);
    Prefetch next = next_panel(plan, block, product, p);
    product.next = &next;
    EpilogueS8Params out = epilogue_of(plan, block, panel, acc);
    const bool corrects_rows = block.zero_points != nullptr && panel.sums != nullptr;
    out.bias = corrected_bias(plan, panel, corrects_rows ? 0 : plan.zero_point, bias);
    if (corrects_rows) out.column_sum = panel.sums;
    for (size_t i = 0; i < block.m; i += step) {
      out.m = product.rows = std::min(step, block.m - i);
      const GemmS8KernelInfo& kernel = product.rows < kFewRows ? few_rows : *plan.kernel;
      const auto run = [&](GemmS8Params& params) {
        params.n = panel.width;
        params.next = kernel.streams ? next.leave() : nullptr;
        params.next_stride = next.stride;
        kernel.run(params);
      };
      product.mr = static_cast<size_t>(kernel.mr);
      // Tiles of one or two rows would wait for the latency of their sums, or for the panel.
      if (kernel.streams) product.mr = ceil_div(product.rows, ceil_div(product.rows, product.mr));
      product.lhs = rows + i * block.row_stride * product.element;
      if (block.windows != nullptr)
        multiply_windows(*block.windows, product, i, acc);
      else
        multiply_panel<GemmS8Params>(run, product, acc);
      if (corrects_rows) out.row_zero_point = block.zero_points + i;
      if (block.row_scale != nullptr) out.row_scale = block.row_scale + i;
      if (residual != nullptr)
        out.residual = residual + (i * block.residual_stride + panel.column) * plan.dst_size;
      out.dst = dst + (i * block.dst_stride + panel.column) * plan.dst_size;
      plan.epilogue(out);
    }
  }
}

}  // namespace lepton
