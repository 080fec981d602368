// Kernels of attention whose operands are rounded to 8 bits as they come
// (lepton.DynamicQuantizeAttention), around the integer products that it shares with MatMul. All
// are bit-identical on every ISA: each float operation below is rounded once, in the order given,
// fma as one operation, rint with ties to even.
//
// Range of n floats:  amax = max |x|
//   amax < 1e-30:          inverse = 0, scale = 1     (all zeros)
//   amax infinite or NaN:  x counts as 0, scale = NaN
//   else:                  inverse = 127 / amax, scale = amax / 127
//   q = rint(x · inverse), an integer from −127 to 127
//
// An element of a product's operand is one byte or one int16, as gemm_s8 reads it (kU8, kI16).
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

// One row of scores, and what becomes of it in two steps, so that a row need not wait for the
// maximum of the one before. width columns lie together in a panel, fewer in the last one: score j
// is at scores[(j / width) · panel_stride + row · w + j % width], where w is the width of that
// panel; whole panels are readable and writable, lanes beyond n may hold anything. The first step
// leaves t, as float, where the scores were.
//   s[j] = float(score j − correction[j]) · key_scale[j]
//   t[j] = s[j], factor = scale                                  without bias
//   t[j] = s[j] · scale + max(bias[j] · 1.44269504, −3.4028235e38), factor = 1   with bias
//   t[j] = −infinity         where j >= last, mask[j] == 0 or bias[j] == −infinity
//   max = the largest t that is no NaN, −infinity without one
//   z[j] = max((t[j] − max) · factor, −16), −16 for NaN
//   p[j] = rint(2^z[j] · 255), 2^z by a polynomial (Exp2 below); 0 for n <= j < n_padded
struct AttentionS8Row {
  size_t n, n_padded;  // keys; elements of p, up to a multiple of 4
  size_t last;         // keys that may be attended, <= n
  int32_t* scores;
  size_t row, width, last_width, panel_stride;  // widths: multiples of 8, of 16 from AVX-512 on
  const int32_t* correction;                    // null or one for each key
  const float* key_scale;                       // one for each key
  float scale;
  const float* bias;    // null or n values
  const uint8_t* mask;  // null or n bytes
  void* p;              // elements, each from 0 to 255
};

// 2^z = 2^n · c(f), n = rint(z), f = z − n: c in Horner's form by fma, times 255. Relative error
// 8e-5 (minimax, made for this file), a fiftieth of a step of p.
struct Exp2 {
  static constexpr float c0 = 2.549816589e+02f, c1 = 1.767815552e+02f, c2 = 6.186583710e+01f,
                         c3 = 1.406877518e+01f;
};

struct AttentionS8Kernels {
  // n rows of k floats, stride apart, each over its own range, to rows of k_padded elements
  // q + offset (128 for an unsigned lhs, else 0; bytes only); elements from k to k_padded are 0.
  // scale: takes n entries. sum: null, or takes the sum of each row's q.
  void (*quantize_rows_s8)(const float* x, size_t stride, size_t n, size_t k, size_t k_padded,
                           int offset, uint8_t* dst, float* scale, int32_t* sum);
  void (*quantize_rows_i16)(const float* x, size_t stride, size_t n, size_t k, size_t k_padded,
                            int16_t* dst, float* scale);

  // n rows of `columns` floats, stride apart, as one panel of a rhs, [n / kr][width][kr] (kr 4 for
  // bytes, 2 for int16; rows up to a multiple of kr and columns beyond are zeros), every column
  // over its own range. scale: takes `columns` entries. width as above.
  void (*pack_values_s8)(const float* x, size_t stride, size_t n, size_t columns, size_t width,
                         int8_t* packed, float* scale);
  void (*pack_values_i16)(const float* x, size_t stride, size_t n, size_t columns, size_t width,
                          int16_t* packed, float* scale);

  // The first step, but for p. Returns max.
  float (*scores_row)(const AttentionS8Row& row);
  // The second. Returns the sum of p; 0 where no key may be attended.
  int32_t (*exponentials_row_u8)(const AttentionS8Row& row, float max);   // p: uint8_t
  int32_t (*exponentials_row_i16)(const AttentionS8Row& row, float max);  // p: int16_t
};

#define LEPTON_ATTENTION_S8(name, isa) AttentionS8Kernels name();
#include "ops/attention_s8_kernels.inc"
#undef LEPTON_ATTENTION_S8

}  // namespace lepton
