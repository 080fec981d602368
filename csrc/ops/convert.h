// convert: n elements of a stored dtype to a compute type (load) or back (store).
//
//   load:  dst[i] = compute(src[i])        store: dst[i] = stored(src[i])
//
// src and dst do not overlap unless they are the same pointer and have elements of one size; no
// alignment; nothing beyond element n is touched. One definition for every ISA, bit-identical:
//   integer → integer   modulo 2^bits
//   any → bool          x != 0 (NaN is true)
//   integer → float, float → narrower float   to nearest, ties to even
//   float → integer     towards zero; NaN gives 0; int32 and int64 saturate; the other integer
//   types
//                       take the saturated int64 modulo 2^bits, so that out-of-range values of
//                       images and masks wrap as they do in NumPy on x86. uint64 takes values up to
//                       its own maximum.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "ops/elementwise.h"

namespace lepton {

using ConvertFn = void (*)(const void* src, void* dst, size_t n);

struct ConvertKernel {
  Compute compute;
  DType dtype;
  ConvertFn load;  // null: none here
  ConvertFn store;
};
struct ConvertKernels {
  const ConvertKernel* list;
  size_t size;
};

#define LEPTON_CONVERT(name, isa) ConvertKernels name();
#include "ops/convert_kernels.inc"
#undef LEPTON_CONVERT

// The best implementation within the cap; null for a dtype the runtime does not store.
ConvertFn find_load(Compute compute, DType dtype, Isa max);
ConvertFn find_store(Compute compute, DType dtype, Isa max);

}  // namespace lepton
