// Sixteen channels abreast; everything else is depthwise_rows.h, which also says what limits it.
#include "cpu/depthwise_rows.h"
#include "cpu/f32x16_avx512.h"

namespace lepton {

void depthwise_f32_avx512(const DepthwiseF32Params& params) { depthwise_rows<F32x16>(params); }

}  // namespace lepton
