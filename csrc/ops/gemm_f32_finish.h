// The last step of float32 products: sums to results. Included by drivers only.
#pragma once

#include <algorithm>

#include "ops/gemm_driver.h"

namespace lepton {

// Sums acc[m][columns], acc_stride apart, of rows [row, row + m) of the block and of the product's
// columns [column, column + columns), as far as it has so many.
inline void finish_f32(const GemmF32Plan& plan, const GemmF32Block& block, size_t row, size_t m,
                       size_t column, size_t columns, const float* acc, size_t acc_stride) {
  EpilogueF32Params out = {};
  out.m = m;
  out.n = std::min(columns, plan.n - column);
  out.acc = acc;
  out.acc_stride = acc_stride;
  out.bias = plan.bias == nullptr ? nullptr : plan.bias + column;
  if (block.residual != nullptr)
    out.residual = block.residual + row * block.residual_stride + column;
  out.residual_stride = block.residual_stride;
  out.min = plan.min;
  out.max = plan.max;
  out.dst = block.dst + row * block.dst_stride + column;
  out.dst_stride = block.dst_stride;
  plan.epilogue(out);
}

}  // namespace lepton
