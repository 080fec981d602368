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
    case DType::kBF16: return "bfloat16";
    default: return "undefined";
  }
}

}  // namespace lepton
