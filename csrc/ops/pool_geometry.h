// What the pooling drivers share: attributes, and the number of cells an average divides by.
#pragma once

#include <algorithm>

#include "ops/pool.h"
#include "ops/window.h"

namespace lepton {

struct PoolWindow {
  Window window;
  bool global = false;  // the window is all of the input; `window` is made at bind
  bool count_include_pad = false;
};

inline Status parse_pool_window(const Attrs& attrs, bool global, PoolWindow* pool) {
  pool->global = global;
  pool->count_include_pad = attrs.i("count_include_pad", 0) != 0;
  if (global) return {};
  LEPTON_RETURN_IF_ERROR(parse_window(attrs, &pool->window));
  if (pool->window.taps() >= kMaxPoolTaps) return unsupported("kernel_shape is too large");
  return {};
}

// The window and its shape over x, of which a global pool sees all spatial dimensions as one.
inline Status resolve_pool(const PoolWindow& pool, const Shape& x, bool channels_last,
                           Window* window, WindowShape* shape) {
  if (!pool.global) {
    *window = pool.window;
    return resolve_window(*window, x, channels_last, shape);
  }
  if (x.rank < 3) return invalid_input("a global pool does not fit a tensor of shape " + x.str());
  const int first = channels_last ? 1 : 2;
  const int64_t pixels = x.product(first, first + x.rank - 2);
  if (pixels >= kMaxPoolTaps) return unsupported("a global pool over so many cells");
  *window = Window{};
  window->rank = 1;
  window->kernel[2] = std::max<int64_t>(pixels, 1);
  *shape = WindowShape{};
  shape->in[2] = pixels;
  return {};
}

inline Shape pool_output(const PoolWindow& pool, const Window& window, const WindowShape& shape,
                         const Shape& x, bool channels_last) {
  const int64_t channels = channels_of(x, channels_last);
  if (!pool.global) return window_output(window, shape, batch_of(x), channels, channels_last);
  Shape y = x;
  const int first = channels_last ? 1 : 2;
  for (int i = 0; i < x.rank - 2; ++i) y[first + i] = 1;
  return y;
}

// Cells of the window of output `o` along one axis that lie inside the padded input.
inline int64_t padded_cells(const Window& w, const WindowShape& s, int axis, int64_t o) {
  const int64_t origin = o * w.stride[axis];  // within the padded input
  const int64_t room = s.in[axis] + s.pad_begin[axis] + s.pad_end[axis] - origin;
  const int64_t cells = (room + w.dilation[axis] - 1) / w.dilation[axis];
  return std::max<int64_t>(0, std::min(cells, w.kernel[axis]));
}
inline int64_t padded_cells(const Window& w, const WindowShape& s, const int64_t (&o)[kSpatial]) {
  return padded_cells(w, s, 0, o[0]) * padded_cells(w, s, 1, o[1]) * padded_cells(w, s, 2, o[2]);
}

// Most taps any window of a call can list.
inline size_t most_taps(const Window& w, const WindowShape& s) {
  return static_cast<size_t>(std::min(w.taps(), s.in_pixels()));
}

}  // namespace lepton
