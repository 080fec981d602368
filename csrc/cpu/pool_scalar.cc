// Pooling, portable: one output value at a time.
#include "ops/pool.h"

namespace lepton {
namespace {

template <typename T>
inline T at(const PoolParams& p, size_t t, size_t i, size_t c) {
  return static_cast<const T*>(p.input[t])[static_cast<ptrdiff_t>(i) * p.input_step[t] + c];
}

template <typename T>
void max(const PoolParams& p, T lowest) {
  T* dst = static_cast<T*>(p.dst);
  for (size_t i = 0; i < p.pixels; ++i) {
    for (size_t c = 0; c < p.channels; ++c) {
      T m = lowest;
      for (size_t t = 0; t < p.taps; ++t) {
        const T x = at<T>(p, t, i, c);
        m = x > m ? x : m;
      }
      dst[i * p.dst_step + c] = m;
    }
  }
}

template <typename T, typename Sum>
inline Sum sum(const PoolParams& p, size_t i, size_t c, Sum start) {
  for (size_t t = 0; t < p.taps; ++t) start += at<T>(p, t, i, c);
  return start;
}

template <typename T>
void sum_integers(const PoolParams& p) {
  int32_t* dst = static_cast<int32_t*>(p.dst);
  for (size_t i = 0; i < p.pixels; ++i)
    for (size_t c = 0; c < p.channels; ++c) dst[i * p.dst_step + c] = sum<T>(p, i, c, p.bias);
}

}  // namespace

void pool_max_f32_scalar(const PoolParams& p) { max<float>(p, -__builtin_inff()); }
void pool_max_u8_scalar(const PoolParams& p) { max<uint8_t>(p, 0); }
void pool_max_s8_scalar(const PoolParams& p) { max<int8_t>(p, -128); }
void pool_average_f32_scalar(const PoolParams& p) {
  float* dst = static_cast<float*>(p.dst);
  for (size_t i = 0; i < p.pixels; ++i)
    for (size_t c = 0; c < p.channels; ++c)
      dst[i * p.dst_step + c] = sum<float>(p, i, c, 0.f) / p.divisor;
}
void pool_sum_u8_scalar(const PoolParams& p) { sum_integers<uint8_t>(p); }
void pool_sum_s8_scalar(const PoolParams& p) { sum_integers<int8_t>(p); }

}  // namespace lepton
