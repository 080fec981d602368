#include "core/dtype.h"

namespace lepton {

const char* name_of(DType t) {
  switch (t) {
    case DType::kF32: return "float32";
    case DType::kU8: return "uint8";
    case DType::kS8: return "int8";
    case DType::kU16: return "uint16";
    case DType::kS16: return "int16";
    case DType::kS32: return "int32";
    case DType::kS64: return "int64";
    case DType::kBool: return "bool";
    case DType::kF16: return "float16";
    case DType::kF64: return "float64";
    case DType::kU32: return "uint32";
    case DType::kU64: return "uint64";
    case DType::kC64: return "complex64";
    case DType::kC128: return "complex128";
    case DType::kBF16: return "bfloat16";
    case DType::kF8E4M3FN: return "float8_e4m3fn";
    case DType::kF8E4M3FNUZ: return "float8_e4m3fnuz";
    case DType::kF8E5M2: return "float8_e5m2";
    case DType::kF8E5M2FNUZ: return "float8_e5m2fnuz";
    case DType::kU4: return "uint4";
    case DType::kS4: return "int4";
    case DType::kF4E2M1: return "float4_e2m1fn";
    case DType::kF8E8M0: return "float8_e8m0fnu";
    case DType::kU2: return "uint2";
    case DType::kS2: return "int2";
    default: return "undefined";
  }
}

}  // namespace lepton
