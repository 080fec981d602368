// Element types. The numbers are ONNX's TensorProto.DataType, so plans and models agree.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

enum class DType : uint8_t {
  kUndefined = 0,
  kF32 = 1,
  kU8 = 2,
  kS8 = 3,
  kU16 = 4,
  kS16 = 5,
  kS32 = 6,
  kS64 = 7,
  kBool = 9,
  kF16 = 10,
  kF64 = 11,
  kU32 = 12,
  kU64 = 13,
  kC64 = 14,
  kC128 = 15,
  kBF16 = 16,
  kF8E4M3FN = 17,
  kF8E4M3FNUZ = 18,
  kF8E5M2 = 19,
  kF8E5M2FNUZ = 20,
  kU4 = 21,
  kS4 = 22,
  kF4E2M1 = 23,
  kF8E8M0 = 24,
  kU2 = 25,
  kS2 = 26,
};
constexpr int kLastDType = 26;

// Bytes per element; 0 for a dtype the runtime does not store. Types of less than a byte take one.
constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::kU8:
    case DType::kS8:
    case DType::kBool:
    case DType::kF8E4M3FN:
    case DType::kF8E4M3FNUZ:
    case DType::kF8E5M2:
    case DType::kF8E5M2FNUZ:
    case DType::kF8E8M0:
    case DType::kF4E2M1:
    case DType::kU4:
    case DType::kS4:
    case DType::kU2:
    case DType::kS2: return 1;
    case DType::kU16:
    case DType::kS16:
    case DType::kF16:
    case DType::kBF16: return 2;
    case DType::kF32:
    case DType::kS32:
    case DType::kU32: return 4;
    case DType::kS64:
    case DType::kU64:
    case DType::kF64:
    case DType::kC64: return 8;
    case DType::kC128: return 16;
    default: return 0;
  }
}

// Whether kernels compute with it. The others are only stored and moved.
constexpr bool is_number(DType t) {
  return size_of(t) != 0 && t != DType::kC64 && t != DType::kC128 && t <= DType::kBF16;
}

// Name as numpy spells it ("float32", "uint8", ...).
const char* name_of(DType t);

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::kS8;
};
template <>
struct DTypeOf<uint16_t> {
  static constexpr DType value = DType::kU16;
};
template <>
struct DTypeOf<int16_t> {
  static constexpr DType value = DType::kS16;
};
template <>
struct DTypeOf<uint32_t> {
  static constexpr DType value = DType::kU32;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kS32;
};
template <>
struct DTypeOf<uint64_t> {
  static constexpr DType value = DType::kU64;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kS64;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::kBool;
};

}  // namespace lepton
