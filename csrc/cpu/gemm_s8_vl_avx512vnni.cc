// The 6x16 tile of gemm_s8_vnni256.h in the encoding of AVX512-VNNI on 256 bits: slower than its
// 512-bit neighbour, it shows on machines with AVX-512 that the code of gemm_s8_avxvnni.cc is
// right.
#include "cpu/gemm_s8_vnni256.h"

namespace lepton {
namespace {

struct Dot {
  __m256i operator()(__m256i sum, __m256i lhs, __m256i rhs) const {
    return _mm256_dpbusd_epi32(sum, lhs, rhs);
  }
};

}  // namespace

void gemm_s8_6x16c4_avx512vnni(const GemmS8Params& params) { gemm_6x16<Dot>(params); }

}  // namespace lepton
