// Eight channels abreast; everything else is depthwise_rows.h, which also says what limits it.
#include "cpu/depthwise_rows.h"
#include "cpu/f32x8_avx2.h"

namespace lepton {

void depthwise_f32_avx2(const DepthwiseF32Params& params) { depthwise_rows<F32x8>(params); }

}  // namespace lepton
