// _core.testing: depthwise, pooling and gathering kernels, and those that read windows, on guarded
// copies, as testing.cc does for the others. Every tap reads from a buffer of its own, exactly as
// long as the contract lets the kernel read.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/guarded_buffer.h"
#include "ops/gather_kernels.h"
#include "ops/gemm.h"
#include "ops/window_kernels.h"
#include "ops/winograd_kernels.h"

namespace py = pybind11;

namespace lepton {
namespace {

template <typename Info>
const Info& runnable(KernelList<Info> list, const std::string& kernel) {
  const Info* info = list.find(kernel);
  if (info == nullptr) throw py::value_error("kernel '" + kernel + "' does not run here");
  return *info;
}

void expect(const py::array& array, size_t elements, const char* name) {
  if (static_cast<size_t>(array.size()) != elements)
    throw py::value_error(std::string(name) + " has " + std::to_string(array.size()) +
                          " elements, not " + std::to_string(elements));
}

GuardedBuffer guarded(const py::array& array, bool at_start) {
  return {array.data(), static_cast<size_t>(array.nbytes()), at_start};
}

// Taps [(values, step)]: values hold (pixels − 1)·step + channels elements.
struct Taps {
  Taps(const std::vector<std::pair<py::array, ptrdiff_t>>& taps, size_t pixels, size_t channels,
       bool at_start) {
    for (const auto& [values, step] : taps) {
      if (step < 0) throw py::value_error("steps are not negative here");
      expect(values, (pixels - 1) * step + channels, "a tap");
      buffers.push_back(std::make_unique<GuardedBuffer>(values.data(), values.nbytes(), at_start));
      steps.push_back(step);
    }
  }
  template <typename T>
  std::vector<const T*> pointers() const {
    std::vector<const T*> at;
    for (const auto& buffer : buffers) at.push_back(buffer->as<T>());
    return at;
  }
  size_t size() const { return buffers.size(); }

  std::vector<std::unique_ptr<GuardedBuffer>> buffers;
  std::vector<ptrdiff_t> steps;
};
using TapArgument = std::vector<std::pair<py::array, ptrdiff_t>>;

py::array copy_out(const py::array& like, const GuardedBuffer& buffer) {
  py::array out(like.dtype(), like.size());
  std::memcpy(out.mutable_data(), buffer.as<uint8_t>(), out.nbytes());
  return out;
}

using Floats = py::array_t<float, py::array::c_style>;

py::array depthwise_f32(const std::string& kernel, size_t channels, size_t pixels,
                        const TapArgument& tap_list, const Floats& weights, const Floats& bias,
                        const std::optional<Floats>& residual, float min, float max,
                        const Floats& dst, size_t dst_step, bool at_start) {
  const DepthwiseF32KernelInfo& info = runnable(depthwise_f32_kernels(), kernel);
  const Taps taps(tap_list, pixels, channels, at_start);
  const size_t extent = (pixels - 1) * dst_step + channels;
  expect(weights, taps.size() * channels, "weights");
  expect(bias, channels, "bias");
  expect(dst, extent, "dst");
  if (residual) expect(*residual, extent, "residual");
  const GuardedBuffer w = guarded(weights, at_start), b = guarded(bias, at_start);
  const GuardedBuffer r = guarded(residual ? *residual : dst, at_start);
  const GuardedBuffer out = guarded(dst, at_start);
  std::vector<const float*> input = taps.pointers<float>();
  DepthwiseF32Params p{};
  p.channels = channels, p.taps = taps.size(), p.pixels = pixels;
  p.input = input.data(), p.input_step = taps.steps.data();
  p.weights = w.as<float>(), p.bias = b.as<float>();
  p.residual = residual ? r.as<float>() : nullptr, p.residual_step = dst_step;
  p.min = min, p.max = max, p.dst = out.as<float>(), p.dst_step = dst_step;
  info.run(p);
  return copy_out(dst, out);
}

// requantize: none for the sums in acc, or (zero_point, lo, hi) for the bytes in dst.
py::array depthwise_s8(const std::string& kernel, size_t channels, size_t pixels,
                       const TapArgument& tap_list, const py::array_t<int16_t>& weights,
                       const py::array_t<int32_t>& bias, const Floats& scale,
                       const std::optional<std::array<int32_t, 3>>& requantize,
                       const py::array& dst, size_t dst_step, bool at_start) {
  const DepthwiseS8KernelInfo& info = runnable(depthwise_s8_kernels(), kernel);
  const Taps taps(tap_list, pixels, channels, at_start);
  const size_t padded = (channels + kDepthwiseBlock - 1) / kDepthwiseBlock * kDepthwiseBlock;
  expect(weights, depthwise_s8_packed_size(channels, taps.size()), "weights");
  expect(bias, padded, "bias");
  expect(scale, padded, "scale");
  if (dst.itemsize() != (requantize ? 1 : 4)) throw py::value_error("dst has the wrong dtype");
  expect(dst, (pixels - 1) * dst_step + (requantize ? channels : padded), "dst");
  const GuardedBuffer w = guarded(weights, at_start), b = guarded(bias, at_start);
  const GuardedBuffer s = guarded(scale, at_start), out = guarded(dst, at_start);
  std::vector<const uint8_t*> input = taps.pointers<uint8_t>();
  DepthwiseS8Params p{};
  p.channels = channels, p.taps = taps.size(), p.pixels = pixels;
  p.input_signed = !tap_list.empty() && tap_list[0].first.dtype().is(py::dtype::of<int8_t>());
  p.input = input.data(), p.input_step = taps.steps.data();
  p.weights = w.as<int16_t>(), p.bias = b.as<int32_t>(), p.scale = s.as<float>();
  if (requantize) {
    p.zero_point = (*requantize)[0], p.lo = (*requantize)[1], p.hi = (*requantize)[2];
    p.dst = out.as<uint8_t>(), p.dst_step = dst_step;
  } else {
    p.acc = out.as<int32_t>(), p.acc_stride = dst_step;
  }
  info.run(p);
  return copy_out(dst, out);
}

// taps: where each begins in x, and its step; w [taps, channels].
py::array depthwise_s8_quads(const std::string& kernel, size_t channels, size_t pixels,
                             const py::array_t<uint8_t>& x,
                             const std::vector<std::pair<size_t, ptrdiff_t>>& taps,
                             const py::array_t<int16_t>& weights, const py::array_t<int32_t>& bias,
                             const Floats& scale, const std::array<int32_t, 3>& requantize,
                             const py::array& dst, size_t dst_step, bool at_start) {
  const DepthwiseQuadsKernelInfo& info = runnable(depthwise_quads_kernels(), kernel);
  const size_t rows = taps.size() / 3;
  expect(weights, 3 * rows * channels, "weights");
  expect(bias, channels, "bias");
  expect(scale, channels, "scale");
  expect(dst, (pixels - 1) * dst_step + channels, "dst");
  const GuardedBuffer image = guarded(x, at_start), out = guarded(dst, at_start);
  const GuardedBuffer operands(nullptr, depthwise_quads_bytes(channels, rows), at_start);
  pack_depthwise_quads(weights.data(), bias.data(), scale.data(), channels, rows,
                       operands.as<std::byte>());
  std::vector<const uint8_t*> input;
  std::vector<ptrdiff_t> steps;
  for (const auto& [start, step] : taps) {
    input.push_back(image.as<uint8_t>() + start);
    steps.push_back(step);
  }
  info.run({channels, rows, pixels, input.data(), steps.data(), operands.as<std::byte>(),
            requantize[0], requantize[1], requantize[2], out.as<uint8_t>(), dst_step});
  return copy_out(dst, out);
}

py::array pool(const std::string& kernel, size_t channels, size_t pixels,
               const TapArgument& tap_list, float divisor, int32_t bias, const py::array& dst,
               size_t dst_step, bool at_start) {
  const PoolKernelInfo& info = runnable(pool_kernels(), kernel);
  const Taps taps(tap_list, pixels, channels, at_start);
  expect(dst, (pixels - 1) * dst_step + channels, "dst");
  const GuardedBuffer out = guarded(dst, at_start);
  const std::vector<const uint8_t*> input = taps.pointers<uint8_t>();
  PoolParams p{};
  p.channels = channels, p.taps = taps.size(), p.pixels = pixels;
  p.input = reinterpret_cast<const void* const*>(input.data());
  p.input_step = taps.steps.data();
  p.divisor = divisor, p.bias = bias, p.dst = out.as<void>(), p.dst_step = dst_step;
  info.run(p);
  return copy_out(dst, out);
}

// pixels [36, channels], each in a buffer of its own; v [36 products, channels].
py::array winograd_input(const std::string& kernel, const Floats& pixels, bool at_start) {
  const WinogradF32KernelInfo& info = runnable(winograd_f32_kernels(), kernel);
  if (pixels.ndim() != 2 || pixels.shape(0) != static_cast<py::ssize_t>(kWinogradProducts))
    throw py::value_error("pixels have shape [36, channels]");
  const size_t channels = pixels.shape(1);
  std::vector<std::unique_ptr<GuardedBuffer>> buffers;
  const float* at[kWinogradProducts];
  for (size_t i = 0; i < kWinogradProducts; ++i) {
    buffers.push_back(
        std::make_unique<GuardedBuffer>(pixels.data(i, 0), channels * sizeof(float), at_start));
    at[i] = buffers.back()->as<float>();
  }
  const GuardedBuffer v(nullptr, pixels.nbytes(), at_start);
  info.run().input({channels, at, v.as<float>(), channels});
  return copy_out(pixels, v);
}

// m [36 products, panels, width]; y [tile * tile pixels, panels * width].
py::array winograd_output(const std::string& kernel, const Floats& m, size_t tile, bool at_start) {
  const WinogradF32KernelInfo& info = runnable(winograd_f32_kernels(), kernel);
  if (m.ndim() != 3 || m.shape(0) != static_cast<py::ssize_t>(kWinogradProducts))
    throw py::value_error("m has shape [36, panels, width]");
  const size_t panels = m.shape(1), width = m.shape(2), channels = panels * width;
  if (width % info.lanes != 0) throw py::value_error("width is not whole vectors");
  const GuardedBuffer products = guarded(m, at_start);
  const Floats like(static_cast<py::ssize_t>(tile * tile * channels));
  const GuardedBuffer y(nullptr, like.nbytes(), at_start);
  if (tile != 4 && tile != 2) throw py::value_error("tile is 4 or 2");
  const WinogradKernels transforms = info.run();
  (tile == 4 ? transforms.output_4x4 : transforms.output_2x2)(
      {channels, products.as<float>(), channels, width, width, y.as<float>(), channels});
  return copy_out(like, y);
}

// src and dst end with what the contract lets the kernel touch behind the last stretch.
py::array gather_rows(const std::string& kernel, size_t m, size_t stretches, size_t bytes,
                      const py::array_t<uint8_t>& src, size_t step, size_t line,
                      const py::array_t<uint8_t>& dst, size_t dst_stride, bool at_start) {
  const GatherRowsKernelInfo& info = runnable(gather_rows_kernels(), kernel);
  if (m == 0 || stretches == 0 || bytes == 0 || dst_stride < stretches * bytes)
    throw py::value_error("bad m, stretches, bytes or dst_stride");
  constexpr size_t kBehind = kGatherBlock - 1;
  expect(src, (m - 1) * step + (stretches - 1) * line + bytes + kBehind, "src");
  expect(dst, (m - 1) * dst_stride + stretches * bytes + kBehind, "dst");
  const GuardedBuffer from = guarded(src, at_start), to = guarded(dst, at_start);
  info.run({m, stretches, bytes, from.as<uint8_t>(), step, line, to.as<uint8_t>(), dst_stride});
  return copy_out(dst, to);
}

// Windows begin at `starts` in image, which ends with the last value that any of them reads; dst
// [m][n] starts as `start` where that is given.
py::array gemm_s8_windows(const std::string& kernel, size_t runs, size_t run, size_t pitch,
                          size_t offset, const py::array_t<uint8_t>& image,
                          const std::vector<size_t>& starts, const py::array_t<int8_t>& panel,
                          const std::optional<py::array_t<int32_t>>& start, bool at_start) {
  const GemmS8WindowsKernelInfo& info = runnable(gemm_s8_windows_kernels(), kernel);
  const size_t k = runs * run, m = starts.size();
  if (k == 0 || m == 0 || m > static_cast<size_t>(info.mr)) throw py::value_error("bad m or k");
  const size_t n = static_cast<size_t>(panel.size()) / k;
  expect(panel, k * n, "panel");
  const GuardedBuffer from = guarded(image, at_start), rhs = guarded(panel, at_start);
  std::vector<const uint8_t*> rows;
  size_t end = 0;
  for (size_t at : starts) {
    rows.push_back(from.as<uint8_t>() + at);
    end = std::max(end, at + offset + (runs - 1) * pitch + run);
  }
  expect(image, end, "image");
  py::array_t<int32_t> dst({m, n});
  if (start) expect(*start, m * n, "start");
  const GuardedBuffer to(start ? start->data() : nullptr, m * n * sizeof(int32_t), at_start);
  info.run({m, n, runs, run, pitch, offset, rows.data(), rhs.as<void>(), to.as<int32_t>(),
            start.has_value()});
  return copy_out(dst, to);
}

}  // namespace

void register_testing_conv(py::module_& m) {
  py::module_ testing = m.attr("testing");
  using py::arg;
  testing.def("depthwise_f32", &depthwise_f32, arg("kernel"), arg("channels"), arg("pixels"),
              arg("taps"), arg("weights"), arg("bias"), arg("residual"), arg("min"), arg("max"),
              arg("dst"), arg("dst_step"), arg("at_start"));
  testing.def("depthwise_s8", &depthwise_s8, arg("kernel"), arg("channels"), arg("pixels"),
              arg("taps"), arg("weights"), arg("bias"), arg("scale"), arg("requantize"), arg("dst"),
              arg("dst_step"), arg("at_start"));
  testing.def("depthwise_s8_quads", &depthwise_s8_quads, arg("kernel"), arg("channels"),
              arg("pixels"), arg("x"), arg("taps"), arg("weights"), arg("bias"), arg("scale"),
              arg("requantize"), arg("dst"), arg("dst_step"), arg("at_start"));
  testing.attr("depthwise_lanes") =
      std::vector<int>(std::begin(kDepthwiseLane), std::end(kDepthwiseLane));
  testing.def("pool", &pool, arg("kernel"), arg("channels"), arg("pixels"), arg("taps"),
              arg("divisor"), arg("bias"), arg("dst"), arg("dst_step"), arg("at_start"));
  testing.def("gather_rows", &gather_rows, arg("kernel"), arg("m"), arg("stretches"), arg("bytes"),
              arg("src"), arg("step"), arg("line"), arg("dst"), arg("dst_stride"), arg("at_start"));
  testing.def("gemm_s8_windows", &gemm_s8_windows, arg("kernel"), arg("runs"), arg("run"),
              arg("pitch"), arg("offset"), arg("image"), arg("starts"), arg("panel"), arg("start"),
              arg("at_start"));
  testing.def("winograd_input", &winograd_input, arg("kernel"), arg("pixels"), arg("at_start"));
  testing.def("winograd_output", &winograd_output, arg("kernel"), arg("m"), arg("tile"),
              arg("at_start"));
}

}  // namespace lepton
