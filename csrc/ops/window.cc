#include "ops/window.h"

#include <string>

namespace lepton {
namespace {

// Bound of every window attribute: sums and products of a few of them stay far inside int64.
constexpr int64_t kMaxWindow = int64_t{1} << 20;
constexpr int64_t kMaxTaps = int64_t{1} << 30;

Status read_axis_list(const Attrs& attrs, const char* name, int rank, int64_t least, int64_t* out) {
  const Attrs::Ints list = attrs.ints(name);
  if (list.size == 0) return {};
  if (list.size != static_cast<size_t>(rank))
    return invalid_model(std::string(name) + " must have one value per spatial dimension");
  for (int i = 0; i < rank; ++i) {
    const int64_t v = list.data[i];
    if (v < least || v > kMaxWindow) return invalid_model(std::string(name) + " is out of range");
    out[kSpatial - rank + i] = v;
  }
  return {};
}

Status read_pads(const Attrs& attrs, Window* w) {
  const Attrs::Ints list = attrs.ints("pads");
  if (list.size == 0) return {};
  if (list.size != 2 * static_cast<size_t>(w->rank))
    return invalid_model("pads must have two values per spatial dimension");
  for (int i = 0; i < w->rank; ++i) {
    const int64_t begin = list.data[i], end = list.data[w->rank + i];
    if (begin < 0 || end < 0) return unsupported("negative pads");
    if (begin > kMaxWindow || end > kMaxWindow) return invalid_model("pads are out of range");
    w->pad_begin[kSpatial - w->rank + i] = begin;
    w->pad_end[kSpatial - w->rank + i] = end;
  }
  return {};
}

Status read_auto_pad(const Attrs& attrs, Window* w) {
  const std::string_view mode = attrs.s("auto_pad", "NOTSET");
  if (mode == "NOTSET" || mode.empty())
    w->auto_pad = AutoPad::kExplicit;
  else if (mode == "SAME_UPPER")
    w->auto_pad = AutoPad::kSameUpper;
  else if (mode == "SAME_LOWER")
    w->auto_pad = AutoPad::kSameLower;
  else if (mode == "VALID")
    w->auto_pad = AutoPad::kValid;
  else
    return invalid_model("auto_pad is not one of NOTSET, SAME_UPPER, SAME_LOWER, VALID");
  return {};
}

// Output size along one axis; pads of SAME_* and VALID are resolved on the way.
int64_t resolve_axis(const Window& w, int a, WindowShape* s) {
  const int64_t in = s->in[a], stride = w.stride[a], extent = w.extent(a);
  s->pad_begin[a] = w.pad_begin[a];
  s->pad_end[a] = w.pad_end[a];
  if (w.auto_pad == AutoPad::kValid) s->pad_begin[a] = s->pad_end[a] = 0;
  if (w.auto_pad == AutoPad::kSameUpper || w.auto_pad == AutoPad::kSameLower) {
    const int64_t out = (in + stride - 1) / stride;
    const int64_t wanted = (out - 1) * stride + extent - in;
    const int64_t total = wanted > 0 ? wanted : 0;
    const int64_t smaller = total / 2;
    s->pad_begin[a] = w.auto_pad == AutoPad::kSameUpper ? smaller : total - smaller;
    s->pad_end[a] = total - s->pad_begin[a];
    return out;
  }
  const int64_t room = in + s->pad_begin[a] + s->pad_end[a] - extent;
  // Rounded up, a window that reaches beyond the end still counts.
  if (room < 0) return w.ceil_mode && room > -stride && in + s->pad_begin[a] > 0 ? 1 : 0;
  int64_t out = room / stride + 1;
  if (w.ceil_mode && room % stride != 0 && out * stride < in + s->pad_begin[a]) ++out;
  return out;
}

}  // namespace

Status parse_window(const Attrs& attrs, Window* window) {
  const size_t rank = attrs.ints("kernel_shape").size;
  if (rank < 1) return invalid_model("kernel_shape is missing");
  if (rank > kSpatial) return unsupported("more than three spatial dimensions");
  Window w;
  w.rank = static_cast<int>(rank);
  LEPTON_RETURN_IF_ERROR(read_axis_list(attrs, "kernel_shape", w.rank, 1, w.kernel));
  LEPTON_RETURN_IF_ERROR(read_axis_list(attrs, "strides", w.rank, 1, w.stride));
  LEPTON_RETURN_IF_ERROR(read_axis_list(attrs, "dilations", w.rank, 1, w.dilation));
  LEPTON_RETURN_IF_ERROR(read_pads(attrs, &w));
  LEPTON_RETURN_IF_ERROR(read_auto_pad(attrs, &w));
  w.ceil_mode = attrs.i("ceil_mode", 0) != 0;
  if (w.kernel[0] * w.kernel[1] > kMaxTaps || w.taps() > kMaxTaps)
    return unsupported("kernel_shape is too large");
  *window = w;
  return {};
}

Status resolve_window(const Window& window, const Shape& x, bool channels_last,
                      WindowShape* shape) {
  if (x.rank != window.rank + 2)
    return invalid_input("a window over " + std::to_string(window.rank) +
                         " spatial dimensions does not fit a tensor of shape " + x.str());
  WindowShape s;
  for (int i = 0; i < window.rank; ++i)
    s.in[kSpatial - window.rank + i] = x[channels_last ? 1 + i : 2 + i];
  for (int a = 0; a < kSpatial; ++a) s.out[a] = resolve_axis(window, a, &s);
  *shape = s;
  return {};
}

Shape window_output(const Window& window, const WindowShape& shape, int64_t batch, int64_t channels,
                    bool channels_last) {
  Shape y{batch};
  if (!channels_last) y.push_back(channels);
  for (int a = kSpatial - window.rank; a < kSpatial; ++a) y.push_back(shape.out[a]);
  if (channels_last) y.push_back(channels);
  return y;
}

}  // namespace lepton
