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
  kBF16 = 16,
};

// Bytes per element; 0 for a dtype the runtime does not store.
constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::kU8:
    case DType::kS8:
    case DType::kBool: return 1;
    case DType::kU16:
    case DType::kS16:
    case DType::kF16:
    case DType::kBF16: return 2;
    case DType::kF32:
    case DType::kS32:
    case DType::kU32: return 4;
    case DType::kS64:
    case DType::kU64:
    case DType::kF64: return 8;
    default: return 0;
  }
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
