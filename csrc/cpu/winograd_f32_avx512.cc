// Sixteen channels abreast; everything else is winograd_transforms.h, which also says what limits
// it.
#include "cpu/f32x16_avx512.h"
#include "cpu/winograd_transforms.h"

namespace lepton {

WinogradKernels winograd_f32_avx512() {
  return {winograd_input<F32x16>, winograd_output<F32x16, 4>, winograd_output<F32x16, 2>};
}

}  // namespace lepton
