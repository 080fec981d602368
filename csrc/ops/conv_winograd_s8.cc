// lepton.QLinearConv with the attribute winograd = 2: a 3x3 convolution with stride 1 by exact
// integer F(2x2, 3x3), see winograd_s8.h. W is 16 matrices u[e] = (2G w 2Gᵀ)[e], each in panels
// int16[in_channels / kr][nr][kr] of the step's kernel, one of form i16; X is channels-last; both
// counts of channels are multiples of 16. Other operands: conv.cc.
//
// A chunk is a block of tiles. Its patches are transformed into 16 matrices of one row per tile,
// which are multiplied one after another; the products of each tile become 2x2 sums, and the sums
// of all tiles beside one another go through the epilogue of the direct convolution together.
#include <algorithm>
#include <string>
#include <vector>

#include "ops/conv_ops.h"
#include "ops/conv_quantized.h"
#include "ops/winograd_kernels.h"

namespace lepton {
namespace {

// Tiles of a block: enough that reading all of u once a block costs little, few enough that what a
// block makes stays close; and with several threads no fewer than feed the multiplication.
constexpr size_t kTilesPerBlock = 48, kMinTilesPerBlock = 12;

// Where the tiles of one shape lie, how they are cut, and a thread's scratch in bytes.
struct TileGrid {
  size_t rows, columns, tiles;  // of one image; of all
  size_t block, blocks;         // tiles of a block; their number
  size_t v_step, m_step, panel_step, y_step;
  size_t v_bytes, m_bytes, y_bytes;
  size_t bytes() const { return v_bytes + m_bytes + y_bytes; }
};

// A line more than whole rows keeps the 16 products of a tile from sharing a set of the cache.
size_t spread(size_t elements, size_t size) {
  return round_up(elements, kCacheLine / size) + kCacheLine / size;
}

TileGrid tile_grid(const ConvAttrs& conv, const ConvShape& shape, const GemmS8KernelInfo& kernel,
                   size_t threads) {
  TileGrid g{};
  g.rows = ceil_div(shape.window.out[1], kWinogradS8Tile);
  g.columns = ceil_div(shape.window.out[2], kWinogradS8Tile);
  g.tiles = shape.batch * g.rows * g.columns;
  const size_t share = threads > 1 ? ceil_div(g.tiles, 2 * threads) : g.tiles;
  const size_t block = std::clamp(share, kMinTilesPerBlock, kTilesPerBlock), mr = kernel.mr;
  g.block = round_up(ceil_div(g.tiles, std::max<size_t>(1, ceil_div(g.tiles, block))), mr);
  g.block = std::max(g.block, mr);
  g.blocks = ceil_div(g.tiles, g.block);
  g.v_step = spread(g.block * conv.in_channels, sizeof(int16_t));
  g.panel_step = g.block * kernel.nr;
  g.m_step = spread(g.block * conv.out_channels, sizeof(int32_t));
  g.y_step = conv.out_channels;
  g.v_bytes = kWinogradS8Products * g.v_step * sizeof(int16_t);
  g.m_bytes = kWinogradS8Products * g.m_step * sizeof(int32_t);
  g.y_bytes = round_up(4 * g.block * g.y_step * sizeof(int32_t), kCacheLine);
  return g;
}

class WinogradConvS8 final : public Op {
 public:
  ConvAttrs conv;
  ConvQuantization q;
  const GemmS8KernelInfo* kernel = nullptr;
  WinogradS8Kernels transforms = {};
  const int16_t* packed = nullptr;
  const int32_t* bias = nullptr;
  const float* scale = nullptr;
  std::vector<uint8_t> padding;  // a pixel of zero points

  Status bind(BindContext& context) const override {
    ConvShape shape;
    LEPTON_RETURN_IF_ERROR(resolve_conv(conv, context.input(0).shape, &shape));
    LEPTON_RETURN_IF_ERROR(expect_residual(context, kConvResidual, shape.y));
    LEPTON_RETURN_IF_ERROR(context.set_output(0, shape.y));
    const TileGrid tiles = tile_grid(conv, shape, *kernel, context.threads());
    context.set_scratch(context.threads() * tiles.bytes());
    const bool add = adds_bytes(q.kind);
    context.set_run([this, shape, tiles, add](const RunArgs& args) {
      args.parallel.loop(tiles.blocks, [&](int64_t i, int thread) {
        const size_t first = i * tiles.block;
        const Run run = {*this,
                         shape,
                         tiles,
                         first,
                         std::min(tiles.block, tiles.tiles - first),
                         args.input<uint8_t>(0),
                         add ? args.input<uint8_t>(kConvResidual) : nullptr,
                         args.output<std::byte>(0),
                         args.scratch + thread * tiles.bytes()};
        run.block_of_tiles();
      });
      return Status();
    });
    return {};
  }

 private:
  // One block of one call.
  struct Run {
    const WinogradConvS8& op;
    const ConvShape& shape;
    const TileGrid& tiles;
    size_t first, count;
    const uint8_t *x, *residual;
    std::byte *dst, *scratch;

    int16_t* v() const { return reinterpret_cast<int16_t*>(scratch); }
    int32_t* m() const { return reinterpret_cast<int32_t*>(scratch + tiles.v_bytes); }
    int32_t* y() const {
      return reinterpret_cast<int32_t*>(scratch + tiles.v_bytes + tiles.m_bytes);
    }
    size_t row_step() const { return 2 * tiles.block * tiles.y_step; }

    void block_of_tiles() const {
      for (size_t t = 0; t < count; ++t) transform_input(t);
      multiply();
      for (size_t t = 0; t < count; ++t) transform_output(t);
      for (size_t t = 0; t < count;) t += finish_row(t);
    }

    struct Corner {
      int64_t image, row, column;  // first output pixel of a tile
    };
    Corner corner(size_t t) const {
      const size_t tile = first + t, in_image = tile % (tiles.rows * tiles.columns);
      return {static_cast<int64_t>(tile / (tiles.rows * tiles.columns)),
              static_cast<int64_t>(in_image / tiles.columns * kWinogradS8Tile),
              static_cast<int64_t>(in_image % tiles.columns * kWinogradS8Tile)};
    }

    void transform_input(size_t t) const {
      const Corner at = corner(t);
      const WindowShape& s = shape.window;
      const int64_t channels = op.conv.in_channels;
      const uint8_t* const image = x + at.image * s.in_pixels() * channels;
      const uint8_t* pixels[kWinogradS8Products];
      const uint8_t** next = pixels;
      for (size_t i = 0; i < kWinogradS8Patch; ++i) {
        const int64_t row = at.row - s.pad_begin[1] + static_cast<int64_t>(i);
        for (size_t j = 0; j < kWinogradS8Patch; ++j) {
          const int64_t column = at.column - s.pad_begin[2] + static_cast<int64_t>(j);
          const bool inside = row >= 0 && row < s.in[1] && column >= 0 && column < s.in[2];
          *next++ = inside ? image + (row * s.in[2] + column) * channels : op.padding.data();
        }
      }
      const int flip = op.q.x_signed ? 128 : 0;
      op.transforms.input({static_cast<size_t>(channels), pixels, static_cast<uint8_t>(flip),
                           op.q.x_zero_point + flip, v() + t * channels, tiles.v_step});
    }

    void multiply() const {
      const size_t k = op.conv.in_channels, nr = op.kernel->nr, mr = op.kernel->mr;
      const size_t panels = op.conv.out_channels / nr;
      const int16_t* panel = op.packed;
      for (size_t e = 0; e < kWinogradS8Products; ++e) {
        for (size_t i = 0; i < panels; ++i, panel += k * nr) {
          int32_t* const to = m() + e * tiles.m_step + i * tiles.panel_step;
          for (size_t t = 0; t < count; t += mr)
            op.kernel->run({std::min(mr, count - t), nr, k, v() + e * tiles.v_step + t * k, k,
                            panel, to + t * nr, false});
        }
      }
    }

    void transform_output(size_t t) const {
      const size_t nr = op.kernel->nr;
      op.transforms.output({static_cast<size_t>(op.conv.out_channels), m() + t * nr, tiles.m_step,
                            tiles.panel_step, nr, y() + 2 * t * tiles.y_step, row_step(),
                            tiles.y_step});
    }

    // The epilogue of tile t and those right of it; how many tiles that were.
    size_t finish_row(size_t t) const {
      const Corner at = corner(t);
      const WindowShape& s = shape.window;
      const size_t in_row = std::min(count - t, tiles.columns - at.column / kWinogradS8Tile);
      const int64_t channels = op.conv.out_channels;
      EpilogueS8Params p = {};
      p.m = std::min<int64_t>(kWinogradS8Tile * in_row, s.out[2] - at.column);
      p.n = p.acc_stride = p.residual_stride = p.dst_stride = channels;
      p.bias = op.bias;
      p.scale = op.scale;
      p.r_signed = op.q.r_signed;
      p.requantize = op.q.requantize;
      p.min = op.q.min;
      p.max = op.q.max;
      const int64_t rows = std::min<int64_t>(kWinogradS8Tile, s.out[1] - at.row);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t pixel = (at.image * s.out[1] + at.row + i) * s.out[2] + at.column;
        p.acc = y() + i * row_step() + 2 * t * tiles.y_step;
        p.residual = residual == nullptr ? nullptr : residual + pixel * channels;
        p.dst = dst + pixel * channels * op.q.dst_size;
        op.q.epilogue(p);
      }
      return in_row;
    }
  };
};

Status check_geometry(const ConvAttrs& conv, const ConvQuantization& q) {
  const Window& w = conv.window;
  if (w.rank != 2 || w.kernel[1] != 3 || w.kernel[2] != 3 || w.stride[1] != 1 || w.stride[2] != 1 ||
      w.dilation[1] != 1 || w.dilation[2] != 1 || conv.group != 1)
    return invalid_model("winograd is for 3x3 convolutions with stride 1, dilation 1, one group");
  if (!conv.channels_last) return unsupported("winograd over a channels-first X");
  if (conv.in_channels % kWinogradS8Channels != 0 || conv.out_channels % kWinogradS8Channels != 0)
    return unsupported("winograd of channels that are no multiple of 16");
  return q.zero_point_at_run ? unsupported("winograd with a zero point at run time") : Status();
}

}  // namespace

Status make_winograd_conv_s8(const StepDesc& step, const ConvAttrs& conv,
                             std::unique_ptr<Op>* out) {
  if (step.attrs->i("winograd") != static_cast<int64_t>(kWinogradS8Tile))
    return unsupported("integer winograd tiles other than 2x2");
  auto op = std::make_unique<WinogradConvS8>();
  op->conv = conv;
  LEPTON_RETURN_IF_ERROR(parse_conv_quantization(step, conv, &op->q));
  LEPTON_RETURN_IF_ERROR(check_geometry(conv, op->q));
  op->kernel = gemm_s8_kernels().find(step.kernel);
  if (op->kernel == nullptr || op->kernel->form != GemmS8Form::kI16 ||
      kWinogradS8Channels % op->kernel->nr != 0)
    return unsupported("winograd with kernel " + std::string(step.kernel));
  size_t bytes = 0;
  LEPTON_RETURN_IF_ERROR(
      gemm_packed_size(*op->kernel, conv.in_channels, conv.out_channels, &bytes));
  if (bytes > static_cast<size_t>(kMaxElements) / kWinogradS8Products)
    return invalid_model("packed W is too large");
  LEPTON_RETURN_IF_ERROR(expect_blob(step.inputs[1], bytes * kWinogradS8Products));
  op->packed = static_cast<const int16_t*>(step.inputs[1].data);
  if (step.has_input(kConvBias))
    op->bias = static_cast<const int32_t*>(step.inputs[kConvBias].data);
  if (step.has_input(kConvScale) && op->q.kind != EpilogueS8Kind::kS32)
    op->scale = static_cast<const float*>(step.inputs[kConvScale].data);
  op->padding.assign(conv.in_channels, static_cast<uint8_t>(op->q.x_zero_point));
  op->transforms = best_winograd_s8(step.isa);
  *out = std::move(op);
  return {};
}

}  // namespace lepton
