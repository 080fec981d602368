#include "ops/conv_geometry.h"

#include <algorithm>
#include <string>

#include "ops/strided_copy.h"

namespace lepton {
namespace {

constexpr int64_t kMaxChannels = int64_t{1} << 24;
constexpr int64_t kPixelsPerChunk = 4096;

}  // namespace

Status parse_conv(const Attrs& attrs, Isa isa, ConvAttrs* conv) {
  // Lowering gives the channels with the weights it packs; without them these are not constant.
  if (!attrs.has("in_channels")) return unsupported("weights that are not constant");
  ConvAttrs c;
  c.isa = isa;
  LEPTON_RETURN_IF_ERROR(parse_window(attrs, &c.window));
  if (c.window.ceil_mode) return invalid_model("ceil_mode is not for convolutions");
  c.in_channels = attrs.i("in_channels", 0);
  c.out_channels = attrs.i("out_channels", 0);
  c.group = attrs.i("group", 1);
  c.channels_last = attrs.i("channels_last", 1) != 0;
  if (c.in_channels < 1 || c.out_channels < 1 || c.in_channels > kMaxChannels ||
      c.out_channels > kMaxChannels)
    return invalid_model("in_channels or out_channels is missing or out of range");
  if (c.group < 1 || c.in_channels % c.group != 0 || c.out_channels % c.group != 0)
    return invalid_model("group does not divide the channels");
  *conv = c;
  return {};
}

Status resolve_conv(const ConvAttrs& conv, const Shape& x, ConvShape* shape) {
  LEPTON_RETURN_IF_ERROR(resolve_window(conv.window, x, conv.channels_last, &shape->window));
  if (channels_of(x, conv.channels_last) != conv.in_channels)
    return invalid_input("the convolution takes " + std::to_string(conv.in_channels) +
                         " channels, X has shape " + x.str());
  shape->batch = batch_of(x);
  shape->y = window_output(conv.window, shape->window, shape->batch, conv.out_channels, true);
  if (!is_valid(shape->y)) return invalid_input("the result would be too large");
  return {};
}

void to_channels_last(const void* x, int64_t batch, int64_t channels, int64_t pixels,
                      size_t element, Isa isa, void* y, Parallel parallel) {
  const TransposeKernel transpose = find_transpose_kernel(static_cast<int64_t>(element), isa);
  const int64_t size = static_cast<int64_t>(element);
  const int64_t chunks = (pixels + kPixelsPerChunk - 1) / kPixelsPerChunk;
  parallel.loop(batch * chunks, [&](int64_t i, int) {
    const int64_t first = i % chunks * kPixelsPerChunk, image = i / chunks * channels * pixels;
    TransposeParams params = {};
    params.rows = static_cast<size_t>(channels);
    params.cols = static_cast<size_t>(std::min(pixels - first, kPixelsPerChunk));
    params.src = static_cast<const std::byte*>(x) + (image + first) * size;
    params.src_stride = pixels * size;
    params.dst = static_cast<std::byte*>(y) + (image + first * channels) * size;
    params.dst_stride = channels * size;
    transpose(params);
  });
}

bool is_either_layout(const ConvAttrs& conv, const WindowShape& shape) {
  return conv.channels_last || conv.in_channels == 1 || shape.in_pixels() <= 1;
}

Status expect_vector(const TensorInfo& operand, DType dtype, int64_t count, const char* name) {
  if (!operand.present) return {};
  if (operand.data == nullptr) return unsupported(std::string(name) + " is not a constant");
  if (operand.dtype != dtype || operand.shape.elements() != count)
    return invalid_model(std::string(name) + " has the wrong dtype or size");
  return {};
}

Status expect_blob(const TensorInfo& operand, size_t bytes) {
  if (!operand.present || operand.data == nullptr) return unsupported("W is not a constant");
  if (static_cast<size_t>(operand.shape.elements()) * size_of(operand.dtype) != bytes)
    return invalid_model("packed W has the wrong size");
  if (reinterpret_cast<uintptr_t>(operand.data) % kCacheLine != 0)
    return invalid_model("packed W is not aligned");
  return {};
}

}  // namespace lepton
