// gemm_s8: one register tile of dst = lhs · rhs, 8-bit integers in, exact int32 out.
//
//   dst[i][j] = (accumulate ? dst[i][j] : 0) + sum over p of lhs[i][p] · rhs[p][j]
//                                                             i < m <= mr, j < n <= nr, p < k
//
// A kernel reads its operands in one of four forms:
//   i16: both widened to int16 with their zero points subtracted (|value| <= 255; transformed by
//        winograd_s8.h up to 2295), so that one kernel serves u8 and s8 on both sides and nothing
//        is left to correct.
//   u8:  lhs as uint8 with its zero point still in it (s8 enters as x + 128), rhs as int8 with its
//        zero point subtracted, which is possible where the difference fits. The driver takes
//        zero_point · (sum of column j) off the result.
//   u8 pairs: as u8, where the packer proved that lhs · rhs of two neighbours of p, 2i and 2i + 1,
//        sums within int16.
//   u8 runs: lhs as in u8; rhs as quads of p in the order in which they are visited, each with the
//        place of its quad of lhs, cut into runs whose products may be summed in int16.
//
// lhs: rows of k values, lhs_stride of them apart, k a multiple of kr (the driver pads rows); for
//      i16 4-byte aligned. Exactly m rows are readable.
// rhs: the values of one packed panel, [k/kr][n][kr], n a multiple of nv, 32-byte aligned (64 where
//      nv · kr values fill as much); columns beyond the matrix and rows beyond the true k are zeros
//      (the packer pads). For u8 runs: n / 8 strips of RunSections, one after another.
// dst: [m][n] int32, 64-byte aligned scratch of the driver.
// next: cache lines that will be read later, or null; a kernel that streams (gemm_s8_kernels.inc)
//      brings the one at next + i·next_stride into L2 before the step [8i, 8i + 8) of k, others
//      leave them.
// Overflow: sums are exact while they fit int32 (k·255·255 < 2^31 always does) and wrap modulo 2^32
// beyond, on every ISA alike; no intermediate saturates. For u8 pairs and u8 runs that is what
// the packer proved, for lhs values up to the bound it was given (gemm_runs.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

enum class GemmS8Form : uint8_t { kI16, kU8, kU8Pairs, kU8Runs };
constexpr bool reads_u8(GemmS8Form form) { return form != GemmS8Form::kI16; }

// A part of a strip of eight columns: runs of four quads, then of two, then single quads. After it
// come values int8[quads][8][4], 32 bytes a quad, then places uint16[quads] (quad i of the section
// multiplies lhs[·][4·place …]), padded to 32 bytes; then the next section, if `more`.
struct alignas(32) RunSection {
  uint32_t runs4, runs2, runs1;
  uint32_t more;
  constexpr size_t quads() const { return size_t{4} * runs4 + size_t{2} * runs2 + runs1; }
};
constexpr size_t kStripColumns = 8, kQuadBytes = 32;

constexpr size_t kStreamDepth = 8;

struct GemmS8Params {
  size_t m, n, k;
  const void* lhs;  // int16_t or uint8_t, by the kernel's form
  size_t lhs_stride;
  const void* rhs;  // int16_t or int8_t
  int32_t* dst;
  bool accumulate;  // start from dst instead of zero: k in several calls
  const std::byte* next = nullptr;
  size_t next_stride = 0;
};
using GemmS8Kernel = void (*)(const GemmS8Params&);

// Kernels on matrix tiles (AMX) find them configured. A thread calls this with true before the
// first of its calls and with false after the last: that takes hundreds of cycles, and a context
// switch saves tiles that are held.
using HoldTiles = void (*)(bool hold);

}  // namespace lepton
