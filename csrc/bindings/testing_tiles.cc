// The kernels on tiles once more, on a model of the tile instructions: their code runs on every
// machine.
#include "emulation/amx_tiles.h"
//
#include "bindings/bindings.h"
#include "cpu/gemm_bf16_amx.h"
#include "cpu/gemm_s8_amx.h"
#include "ops/gemm.h"
#include "ops/gemm_bf16_kernels.h"

namespace lepton {
namespace {

void hold_tiles_model(bool hold) { hold_tiles(hold); }
void gemm_s8_32x32c4_model(const GemmS8Params& params) { gemm_32x32(params); }
void gemm_bf16_32x32c32_model(const GemmBf16PairsParams& params) { gemm_32x32(params); }

}  // namespace

GemmS8KernelInfo modelled_gemm_s8() {
  GemmS8KernelInfo info = *gemm_s8_kernels().describe("gemm_s8_32x32c4_amxint8");
  info.name = "gemm_s8_32x32c4_model";
  info.run = gemm_s8_32x32c4_model;
  info.hold_tiles = hold_tiles_model;
  return info;
}

GemmBf16KernelInfo modelled_gemm_bf16() {
  GemmBf16KernelInfo info = *gemm_bf16_kernels().describe("gemm_bf16_32x32c32_amxbf16");
  info.name = "gemm_bf16_32x32c32_model";
  info.pairs = gemm_bf16_32x32c32_model;
  info.hold_tiles = hold_tiles_model;
  return info;
}

}  // namespace lepton
