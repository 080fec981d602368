// lepton.Conv with the attribute winograd = 4: a 3x3 convolution with stride 1 by F(4x4, 3x3), or
// with winograd = 2 a 5x5 one by F(2x2, 5x5), see winograd_f32.h. W is 36 matrices u[e] = (G w
// Gᵀ)[e], each [in_channels][out_channels], packed by pack_gemm_f32 for the step's kernel; X is
// channels-last. Other operands: conv.cc.
//
// A chunk is a block of tiles × a range of panels. Its patches are transformed into 36 matrices of
// one row per tile, which are multiplied one after another, so that every panel of u is read once
// per block; then the products of each tile become 4x4 or 2x2 pixels. All three stay in this
// thread's scratch, in L2 while channels are few.
#include <algorithm>
#include <string>

#include "ops/conv_ops.h"
#include "ops/conv_quantized.h"
#include "ops/gemm_driver.h"
#include "ops/requantize.h"
#include "ops/winograd_kernels.h"

namespace lepton {
namespace {

// Tiles of a block: enough that reading all of u once a block costs little, few enough that what a
// block makes stays close; and with several threads no fewer than feed the multiplication.
constexpr size_t kTilesPerBlock = 48, kMinTilesPerBlock = 12;

// Where the tiles of one shape lie, how they are cut into chunks, and a thread's scratch in floats.
struct TileGrid {
  size_t side;                  // pixels of a tile, either way
  size_t rows, columns, tiles;  // of one image; of all
  GemmGrid grid;
  size_t v_step, m_step, panel_step;  // from product to product, from panel to panel
  size_t y_step;
  size_t floats() const {
    return kWinogradProducts * (v_step + m_step) + side * side * y_step + padding;
  }
  size_t padding;
};

// A line more than whole rows keeps the 36 products of a tile from sharing a set of the cache.
size_t spread(size_t floats) {
  return round_up(floats, kCacheLine / sizeof(float)) + kCacheLine / sizeof(float);
}

// Blocks of tiles first: ranges of panels share a block's input transform, and each repeats it.
GemmGrid cut(size_t tiles, size_t panels, size_t mr, size_t threads) {
  if (tiles == 0) return {0, panels, 1, 1, 0, 0};
  const size_t share = threads > 1 ? ceil_div(tiles, 2 * threads) : tiles;
  size_t rows = std::clamp(share, kMinTilesPerBlock, kTilesPerBlock);
  rows = round_up(ceil_div(tiles, ceil_div(tiles, rows)), mr);
  const size_t blocks = ceil_div(tiles, rows);
  const size_t ranges = blocks < threads ? std::min(panels, ceil_div(threads, blocks)) : 1;
  const size_t range = ceil_div(panels, ranges);
  return {tiles, panels, rows, range, blocks, ceil_div(panels, range)};
}

TileGrid tile_grid(const ConvAttrs& conv, const ConvShape& shape, const GemmF32KernelInfo& kernel,
                   size_t side, int threads) {
  TileGrid g{};
  g.side = side;
  g.rows = ceil_div(shape.window.out[1], side);
  g.columns = ceil_div(shape.window.out[2], side);
  g.tiles = shape.batch * g.rows * g.columns;
  const size_t nr = kernel.nr, panels = gemm_panels(kernel, conv.out_channels);
  g.grid = cut(g.tiles, panels, kernel.mr, threads);
  g.v_step = spread(g.grid.rows_per_chunk * conv.in_channels);
  g.panel_step = g.grid.rows_per_chunk * nr;
  g.m_step = spread(g.grid.panels_per_chunk * g.panel_step);
  g.y_step = g.grid.panels_per_chunk * nr;
  g.padding = round_up(conv.in_channels, kCacheLine / sizeof(float));
  return g;
}

class WinogradConv final : public Op {
 public:
  ConvAttrs conv;
  size_t side = 4;  // of a tile
  const GemmF32KernelInfo* kernel = nullptr;
  EpilogueF32Kernel epilogue = nullptr;
  WinogradKernels transforms = {};
  const float* packed = nullptr;
  const float* bias = nullptr;
  float min = 0.f, max = 0.f;

  Status bind(BindContext& context) const override {
    ConvShape shape;
    LEPTON_RETURN_IF_ERROR(resolve_conv(conv, context.input(0).shape, &shape));
    LEPTON_RETURN_IF_ERROR(expect_residual(context, kFloatResidual, shape.y));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.y));
    const TileGrid tiles = tile_grid(conv, shape, *kernel, side, context.threads());
    context.set_scratch(context.threads() * tiles.floats() * sizeof(float));
    const bool has_residual = context.num_inputs() > kFloatResidual;
    context.set_run([this, shape, tiles, has_residual](const RunArgs& args) {
      args.parallel.loop(tiles.grid.chunks(), [&](int64_t i, int thread) {
        auto* scratch = reinterpret_cast<float*>(args.scratch) + thread * tiles.floats();
        const Run run = {*this,
                         shape,
                         tiles,
                         tiles.grid.chunk(i),
                         args.input<float>(0),
                         has_residual ? args.input<float>(kFloatResidual) : nullptr,
                         args.output<float>(0),
                         scratch};
        run.chunk_of_tiles();
      });
      return Status();
    });
    return {};
  }

 private:
  // One chunk of one call.
  struct Run {
    const WinogradConv& op;
    const ConvShape& shape;
    const TileGrid& tiles;
    GemmChunk chunk;
    const float *x, *residual;
    float *dst, *scratch;

    float* v() const { return scratch; }
    float* m() const { return v() + kWinogradProducts * tiles.v_step; }
    float* y() const { return m() + kWinogradProducts * tiles.m_step; }
    float* padding() const { return y() + op.side * op.side * tiles.y_step; }

    void chunk_of_tiles() const {
      std::fill_n(padding(), op.conv.in_channels, 0.f);
      for (size_t t = 0; t < chunk.rows; ++t) transform_input(t);
      multiply();
      for (size_t t = 0; t < chunk.rows; ++t) transform_output(t);
    }

    struct Corner {
      int64_t image, row, column;  // first output pixel of a tile
    };
    Corner corner(size_t t) const {
      const size_t tile = chunk.row + t, in_image = tile % (tiles.rows * tiles.columns);
      return {static_cast<int64_t>(tile / (tiles.rows * tiles.columns)),
              static_cast<int64_t>(in_image / tiles.columns * op.side),
              static_cast<int64_t>(in_image % tiles.columns * op.side)};
    }

    void transform_input(size_t t) const {
      const Corner at = corner(t);
      const WindowShape& s = shape.window;
      const int64_t channels = op.conv.in_channels;
      const float* const image = x + at.image * s.in_pixels() * channels;
      const float* pixels[kWinogradProducts];
      const float** next = pixels;
      for (size_t i = 0; i < kWinogradPatch; ++i) {
        const int64_t row = at.row - s.pad_begin[1] + static_cast<int64_t>(i);
        for (size_t j = 0; j < kWinogradPatch; ++j) {
          const int64_t column = at.column - s.pad_begin[2] + static_cast<int64_t>(j);
          const bool inside = row >= 0 && row < s.in[1] && column >= 0 && column < s.in[2];
          *next++ = inside ? image + (row * s.in[2] + column) * channels : padding();
        }
      }
      op.transforms.input(
          {static_cast<size_t>(channels), pixels, v() + t * channels, tiles.v_step});
    }

    void multiply() const {
      const size_t k = op.conv.in_channels;
      const size_t panel_stride = gemm_panel_stride(*op.kernel, k);
      const size_t matrix = gemm_panels(*op.kernel, op.conv.out_channels) * panel_stride;
      for (size_t e = 0; e < kWinogradProducts; ++e) {
        const float* const u = op.packed + e * matrix;
        for (size_t panel = chunk.first; panel < chunk.last; ++panel) {
          const float* const at = u + panel * panel_stride;
          const bool last = panel + 1 == chunk.last;
          const float* const next = !last ? at + panel_stride
                                    : e + 1 < kWinogradProducts
                                        ? u + matrix + chunk.first * panel_stride
                                        : nullptr;
          gemm_f32_panel(*op.kernel, k, chunk.rows, v() + e * tiles.v_step, k, at, next,
                         m() + e * tiles.m_step + (panel - chunk.first) * tiles.panel_step);
        }
      }
    }

    void transform_output(size_t t) const {
      const Corner at = corner(t);
      const WindowShape& s = shape.window;
      const size_t nr = op.kernel->nr, first = chunk.first * nr;
      const int64_t channels = op.conv.out_channels;
      const auto transform = op.side == 4 ? op.transforms.output_4x4 : op.transforms.output_2x2;
      transform({(chunk.last - chunk.first) * nr, m() + t * nr, tiles.m_step, tiles.panel_step, nr,
                 y(), tiles.y_step});
      EpilogueF32Params p = {};
      const int64_t side = static_cast<int64_t>(op.side);
      p.m = std::min<int64_t>(side, s.out[2] - at.column);
      p.n = std::min<size_t>(chunk.last * nr, channels) - first;
      p.acc_stride = tiles.y_step;
      p.bias = op.bias == nullptr ? nullptr : op.bias + first;
      p.residual_stride = p.dst_stride = channels;
      p.min = op.min;
      p.max = op.max;
      const int64_t rows = std::min<int64_t>(side, s.out[1] - at.row);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t pixel = (at.image * s.out[1] + at.row + i) * s.out[2] + at.column;
        p.acc = y() + i * side * tiles.y_step;
        p.residual = residual == nullptr ? nullptr : residual + pixel * channels + first;
        p.dst = dst + pixel * channels + first;
        op.epilogue(p);
      }
    }
  };
};

Status check_geometry(const ConvAttrs& conv, int64_t side) {
  const Window& w = conv.window;
  const int64_t taps = static_cast<int64_t>(kWinogradPatch) - side + 1;
  if (w.rank != 2 || w.kernel[1] != taps || w.kernel[2] != taps || w.stride[1] != 1 ||
      w.stride[2] != 1 || w.dilation[1] != 1 || w.dilation[2] != 1 || conv.group != 1) {
    const std::string kernel = std::to_string(taps) + "x" + std::to_string(taps);
    return invalid_model("winograd is for " + kernel +
                         " convolutions with stride 1, dilation 1, one group");
  }
  if (!conv.channels_last) return unsupported("winograd over a channels-first X");
  return {};
}

}  // namespace

Status make_winograd_conv_f32(const StepDesc& step, const ConvAttrs& conv,
                              std::unique_ptr<Op>* out) {
  const int64_t side = step.attrs->i("winograd");
  if (side != 4 && side != 2) return unsupported("winograd tiles other than 4x4 and 2x2");
  LEPTON_RETURN_IF_ERROR(check_geometry(conv, side));
  auto op = std::make_unique<WinogradConv>();
  op->side = static_cast<size_t>(side);
  op->conv = conv;
  op->kernel = gemm_f32_kernels().find(step.kernel);
  if (op->kernel == nullptr)
    return unsupported("kernel " + std::string(step.kernel) + " cannot run here");
  size_t bytes = 0;
  LEPTON_RETURN_IF_ERROR(
      gemm_packed_size(*op->kernel, conv.in_channels, conv.out_channels, &bytes));
  if (bytes > static_cast<size_t>(kMaxElements) / kWinogradProducts)
    return invalid_model("packed W is too large");
  LEPTON_RETURN_IF_ERROR(expect_blob(step.inputs[1], bytes * kWinogradProducts));
  op->packed = static_cast<const float*>(step.inputs[1].data);
  if (step.has_input(kConvBias)) op->bias = static_cast<const float*>(step.inputs[kConvBias].data);
  LEPTON_RETURN_IF_ERROR(read_clamp(*step.attrs, &op->min, &op->max));
  op->epilogue = best_epilogue_f32(step.isa);
  op->transforms = best_winograd_f32(step.isa, op->kernel->nr);
  *out = std::move(op);
  return {};
}

}  // namespace lepton
