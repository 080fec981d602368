// The block driver that matrix multiplication and convolution share.
//
// A caller cuts its product dst[m][n] = lhs[m][k] · rhs[k][n] into chunks with gemm_grid, prepares
// the lhs rows of a chunk (as they lie, gathered, or in the form of GemmS8Lhs) and calls
// gemm_*_block, which walks panels of the packed rhs × register tiles × epilogue. One panel stays
// in L1 while all rows of the block pass by it; the rows stay in L2 while all panels pass by them.
// No call allocates, and no result depends on how the product was cut.
//
//   GemmS8Plan plan = {kernel, epilogue, k, n, packed, bias, scale, requantize, ...};
//   const GemmGrid grid =
//       gemm_grid(m, gemm_panels(*kernel, n), kernel->mr, lhs.row_bytes(k), threads);
//   parallel.loop(grid.chunks(), [&](int64_t chunk, int thread) {
//     const GemmChunk c = grid.chunk(chunk);
//     // rows [c.row, c.row + c.rows), panels [c.first, c.last)
//     gemm_s8_block(plan, {c.rows, rows, row_stride, nullptr, c.first, c.last, residual, ..., dst,
//                          n});
//   });
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/gemm.h"
#include "ops/op.h"

namespace lepton {

struct GemmBf16KernelInfo;  // gemm_bf16_kernels.h
struct GemmF32Sparse;       // gemm_sparse.h
struct GemmS8Sparse;

// What is fixed for a product. bias and scale hold n entries (bias may be null).
struct GemmF32Plan {
  const GemmF32KernelInfo* kernel;
  const GemmF32Sparse* sparse;     // then the kernel is only its shape; null: `packed` is dense
  const GemmBf16KernelInfo* bf16;  // then `packed` is for it, and the kernel for many rows
  bool rounds_rows;                // to bfloat16: bf16->pairs multiplies
  EpilogueF32Kernel epilogue;
  size_t k, n;
  const void* packed;
  const float* bias;
  float min, max;
};

// m rows against panels [first, last). rows: row_stride elements apart, k readable each. residual
// and dst point at row 0 of the block and column 0 of the product; a residual_stride of 0 repeats
// one row.
struct GemmF32Block {
  size_t m;
  const float* rows;
  size_t row_stride;
  size_t first, last;
  const float* residual;
  size_t residual_stride;
  float* dst;
  size_t dst_stride;
  float* partial;  // gemm_f32_partial floats, 64-byte aligned, or null: panel by panel
};
void gemm_f32_block(const GemmF32Plan& plan, const GemmF32Block& block);

// One panel without an epilogue: acc[rows][nr] = lhs[rows][k] · panel, rows of lhs lhs_stride
// elements apart. acc is 64-byte aligned and has room for rows rounded up to whole register tiles.
// next: the panel that will follow, or null; it is brought closer meanwhile.
void gemm_f32_panel(const GemmF32KernelInfo& kernel, size_t k, size_t rows, const float* lhs,
                    size_t lhs_stride, const float* panel, const float* next, float* acc);

struct GemmS8Plan {
  const GemmS8KernelInfo* kernel;
  const GemmS8Sparse* sparse;  // then the kernel is only its shape; null: `packed` is dense
  EpilogueS8Kernel epilogue;
  size_t k, n;  // the true k; rows and panels are padded to gemm_k_padded(*kernel, k)
  const std::byte* packed;
  size_t panel_stride;  // GemmS8Layout
  const int32_t* bias;
  const float* scale;       // null for an epilogue of kind kS32
  const float* float_bias;  // kF32
  Requantize requantize;
  int32_t zero_point;  // what is left in the rows: GemmS8Lhs::zero_point_left
  float min, max;      // kF32
  bool r_signed;       // the residual is s8
  bool sums;           // it is added before the only rounding (kRequantizeSum)
  size_t dst_size;     // bytes per element of dst: 1 or 4
};

// Rows that are windows (gemm_s8_windows.h): m pointers.
struct GemmS8Windows {
  GemmS8WindowsKernel kernel;
  const uint8_t* const* rows;
  size_t runs, run, pitch;
};

// rows: in the kernel's form (GemmS8Lhs), row_stride elements apart, gemm_k_padded(k) readable
// each. zero_points: one left in each row, instead of the plan's; or null. row_scale: kF32; or
// null. windows: instead of rows; or null.
struct GemmS8Block {
  size_t m;
  const void* rows;
  size_t row_stride;
  const GemmS8Windows* windows;
  const int32_t* zero_points;
  const float* row_scale;
  size_t first, last;
  const void* residual;  // elements as large as those of dst
  size_t residual_stride;
  void* dst;
  size_t dst_stride;
  Ahead ahead;  // what will be read after this block
};
void gemm_s8_block(const GemmS8Plan& plan, const GemmS8Block& block);

// One chunk of a product: rows [row, row + rows) × panels [first, last).
struct GemmChunk {
  size_t row, rows;
  size_t first, last;
};

// How a product is cut: row blocks × panel ranges, all panels of one row block first.
struct GemmGrid {
  size_t m, panels;
  size_t rows_per_chunk, panels_per_chunk;
  size_t row_chunks, panel_chunks;

  int64_t chunks() const { return static_cast<int64_t>(row_chunks * panel_chunks); }
  GemmChunk chunk(int64_t i) const;
  bool is_last(const GemmChunk& c) const { return c.row + c.rows == m && c.last == panels; }
};

// The grid of a float32 product for gemm_f32_block with `partial`: where k is deep, few blocks of
// many rows, so that panels are read seldom. gathered: preparing the rows of a chunk costs a copy.
GemmGrid gemm_f32_grid(const GemmF32KernelInfo& kernel, size_t m, size_t n, size_t k, bool gathered,
                       int threads);
// Floats of `partial` that any chunk of the grid needs; 0 when none does.
size_t gemm_f32_partial(const GemmF32KernelInfo& kernel, const GemmGrid& grid, size_t k);

// row_bytes: size of one prepared lhs row; a chunk's rows stay within half of L2. When there are
// threads to feed, cuts finer, over rows or over panels: whichever ends first by a count of
// products and of panels fetched. kept_bytes: of cache that a row takes; 0: row_bytes.
GemmGrid gemm_grid(size_t m, size_t panels, int mr, size_t row_bytes, int threads,
                   size_t kept_bytes = 0);

}  // namespace lepton
