#include "ops/row_quantizer.h"

#include <algorithm>

#include "ops/kernel_list.h"
#include "ops/op.h"

namespace lepton {
namespace {

template <typename Kernel>
struct QuantizeRowInfo {
  const char* name;
  Isa isa;
  Kernel run;
};
#define LEPTON_QUANTIZE_ROW_I16(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
#define LEPTON_QUANTIZE_ROW_U8(name, isa)
const QuantizeRowInfo<QuantizeRowI16Kernel> kQuantizeRowI16[] = {
#include "ops/quantize_rows_kernels.inc"
};
#undef LEPTON_QUANTIZE_ROW_I16
#undef LEPTON_QUANTIZE_ROW_U8
#define LEPTON_QUANTIZE_ROW_I16(name, isa)
#define LEPTON_QUANTIZE_ROW_U8(name, isa) {#name, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, name)},
const QuantizeRowInfo<QuantizeRowU8Kernel> kQuantizeRowU8[] = {
#include "ops/quantize_rows_kernels.inc"
};
#undef LEPTON_QUANTIZE_ROW_I16
#undef LEPTON_QUANTIZE_ROW_U8

template <typename Kernel, size_t N>
Kernel best_of(const QuantizeRowInfo<Kernel> (&lines)[N], Isa max) {
  return KernelList<QuantizeRowInfo<Kernel>>{lines, N}.best(max)->run;
}

// Rows that one thread quantises at a time.
constexpr size_t kRowsPerChunk = 16;

}  // namespace

RowQuantizer::RowQuantizer(const GemmS8Lhs& lhs, Isa max)
    : lhs_(lhs), i16_(best_of(kQuantizeRowI16, max)), u8_(best_of(kQuantizeRowU8, max)) {}

// Scales and zero points of the rows come before the rows themselves.
size_t RowQuantizer::scratch_bytes(size_t m, size_t k) const {
  return 2 * round_up(m * sizeof(float), kCacheLine) + round_up(m * lhs_.row_bytes(k), kCacheLine);
}

RowQuantizer::Rows RowQuantizer::quantize(const float* x, size_t m, size_t k, size_t x_stride,
                                          std::byte* scratch, Parallel parallel) const {
  const size_t each = round_up(m * sizeof(float), kCacheLine);
  float* const scale = reinterpret_cast<float*>(scratch);
  int32_t* const zero_point = reinterpret_cast<int32_t*>(scratch + each);
  std::byte* const rows = scratch + 2 * each;
  const size_t padded = lhs_.row_stride(k), stride = lhs_.row_bytes(k);
  const auto quantize_one = [&](size_t i) {
    const float* const from = x + i * x_stride;
    std::byte* const to = rows + i * stride;
    scale[i] = lhs_.is_u8() ? u8_(from, k, padded, reinterpret_cast<uint8_t*>(to), zero_point + i)
                            : i16_(from, k, padded, reinterpret_cast<int16_t*>(to));
  };
  parallel.loop(static_cast<int64_t>(ceil_div(m, kRowsPerChunk)), [&](int64_t c, int) {
    const size_t first = static_cast<size_t>(c) * kRowsPerChunk;
    for (size_t i = first; i < std::min(first + kRowsPerChunk, m); ++i) quantize_one(i);
  });
  return {rows, stride, lhs_.is_u8() ? zero_point : nullptr, scale};
}

}  // namespace lepton
