// A window over one channels-last image as lists of tap pointers, the form in which the depthwise
// and pooling kernels read: tap t of pixel i of a run lies at input[t] + i·step[t]. A run is a
// stretch of one output row whose pixels agree on which taps fall into the padding: the interior,
// or one pixel at an edge. Included by drivers only, never by kernel files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/window.h"

namespace lepton {

template <typename T>
struct TapList {
  const T** input;  // room for window.taps() entries each
  ptrdiff_t* step;
  size_t taps = 0;

  void add(const T* p, ptrdiff_t s) {
    input[taps] = p;
    step[taps++] = s;
  }
};

// Bytes of one thread's TapList storage, and the list over such storage.
inline size_t tap_list_bytes(size_t taps) {
  return round_up(taps * (sizeof(void*) + sizeof(ptrdiff_t)), kCacheLine);
}
template <typename T>
TapList<T> tap_list_at(std::byte* storage, size_t taps) {
  return {reinterpret_cast<const T**>(storage),
          reinterpret_cast<ptrdiff_t*>(storage + taps * sizeof(void*)), 0};
}

// Fills the list for the run of row (od, oh) that starts at column ow. Taps in the padding read
// `padding` (a row of `channels` values), or are left out when it is null.
template <typename T>
void list_taps(const Window& w, const WindowShape& s, const T* image, int64_t channels, int64_t od,
               int64_t oh, int64_t ow, const T* padding, TapList<T>* list) {
  list->taps = 0;
  const int64_t d0 = od * w.stride[0] - s.pad_begin[0];
  const int64_t h0 = oh * w.stride[1] - s.pad_begin[1];
  const int64_t w0 = ow * w.stride[2] - s.pad_begin[2];
  for (int64_t i = 0; i < w.kernel[0]; ++i) {
    const int64_t d = d0 + i * w.dilation[0];
    for (int64_t j = 0; j < w.kernel[1]; ++j) {
      const int64_t h = h0 + j * w.dilation[1];
      const bool row_inside = d >= 0 && d < s.in[0] && h >= 0 && h < s.in[1];
      const T* row = row_inside ? image + (d * s.in[1] + h) * s.in[2] * channels : nullptr;
      for (int64_t k = 0; k < w.kernel[2]; ++k) {
        const int64_t x = w0 + k * w.dilation[2];
        if (row_inside && x >= 0 && x < s.in[2])
          list->add(row + x * channels, w.stride[2] * channels);
        else if (padding != nullptr)
          list->add(padding, 0);
      }
    }
  }
}

// Calls body(first, count) for the runs of an output row, left to right.
template <typename F>
void for_each_run(const Window& w, const WindowShape& s, const F& body) {
  const TapRange inside =
      outputs_inside(s.out[2], w.stride[2], s.pad_begin[2], w.extent(2), s.in[2]);
  for (int64_t i = 0; i < inside.first; ++i) body(i, int64_t{1});
  if (inside.last > inside.first) body(inside.first, inside.last - inside.first);
  for (int64_t i = inside.last; i < s.out[2]; ++i) body(i, int64_t{1});
}

// Output row r of a batch: image n, plane od, row oh.
struct OutputRow {
  int64_t n, od, oh;
};
inline OutputRow output_row(const WindowShape& s, int64_t r) {
  return {r / (s.out[0] * s.out[1]), r / s.out[1] % s.out[0], r % s.out[1]};
}

}  // namespace lepton
