// The 6x16 tile of gemm_s8_vnni256.h for processors that have VNNI but not AVX-512.
#include "cpu/gemm_s8_vnni256.h"

namespace lepton {
namespace {

struct Dot {
  __m256i operator()(__m256i sum, __m256i lhs, __m256i rhs) const {
    return _mm256_dpbusd_avx_epi32(sum, lhs, rhs);
  }
};

}  // namespace

void gemm_s8_6x16c4_avxvnni(const GemmS8Params& params) { gemm_6x16<Dot>(params); }

}  // namespace lepton
