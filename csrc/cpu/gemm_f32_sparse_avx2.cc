// The 6x16 tile of gemm_f32_avx2.cc over the stored rows of a panel: two loads of it and six
// broadcasts of the values of lhs that it meets feed twelve FMAs. The limit is the two FMA pipes,
// six cycles for 96 multiply-accumulates, as in the dense kernel, so what is skipped is gained;
// deep k adds lines of lhs that come from L2, of which few values are used.
#include "cpu/f32x8_avx2.h"
#include "cpu/gemm_f32_step.h"
#include "cpu/rows.h"
#include "ops/gemm_f32_sparse.h"

namespace lepton {
namespace {

constexpr size_t kNr = 2 * F32x8::lanes;

template <size_t kRows>
void tile(const GemmF32SparseParams& params) {
  float* dst = params.dst;
  for (size_t p = 0; p < params.panels; ++p, dst += kNr) {
    F32x8 sum[kRows][2];
#pragma GCC unroll 6
    for (size_t i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = F32x8::set(0.f);
    const uint16_t* const end = params.index + params.starts[p + 1];
    const float* values = params.values + size_t{params.starts[p]} * kNr;
    for (const uint16_t* q = params.index + params.starts[p]; q < end; ++q, values += kNr)
      gemm_f32_step(params.lhs + *q, params.lhs_stride, values, sum);
#pragma GCC unroll 6
    for (size_t i = 0; i < kRows; ++i) {
      F32x8::store(dst + i * kGemmF32SparseColumns, sum[i][0]);
      F32x8::store(dst + i * kGemmF32SparseColumns + 8, sum[i][1]);
    }
  }
}

}  // namespace

void gemm_f32_sparse_6x16_avx2(const GemmF32SparseParams& params) {
  with_rows<6>(params.m, [&](auto rows) { tile<rows>(params); });
}

}  // namespace lepton
