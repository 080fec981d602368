// Eight channels abreast; everything else is winograd_transforms.h, which also says what limits it.
#include "cpu/f32x8_avx2.h"
#include "cpu/winograd_transforms.h"

namespace lepton {

WinogradKernels winograd_f32_avx2() {
  return {winograd_input<F32x8>, winograd_output<F32x8, 4>, winograd_output<F32x8, 2>};
}

}  // namespace lepton
