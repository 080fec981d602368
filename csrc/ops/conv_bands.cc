// "lepton.Conv+lepton.Conv+lepton.Conv", or of lepton.QLinearConv: a 1x1 convolution, a depthwise
// one and another 1x1 convolution, of which the first or the last may be missing.
//
// Between the thin tensors of an inverted residual block lies one with several times the channels.
// It never exists as a whole: the image is walked in bands of output rows; the rows of the wide
// tensor that a band needs, and those of the depthwise result, stay in the second-level cache until
// the last convolution has read them. Rows that two bands need are kept, not made again. Every
// convolution is the operator that it would be alone, bound to the rows of a band, so the bits are
// the same. Threads take images, or strips of them, whose first bands make a few rows twice.
//
// Attributes: joined_step.h, and
//   pad_rows  rows of padding above and below the depthwise convolution's input, whose own vertical
//             pads are 0: the rows of a band come with their padding
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ops/conv_geometry.h"
#include "ops/conv_ops.h"
#include "ops/conv_quantized.h"
#include "ops/joined_step.h"

namespace lepton {
namespace {

// Rows of a band, of both tensors.
constexpr size_t kBandBytes = 384 * 1024;
// Chunks per thread that even out unequal speeds; output rows that a strip has at least.
constexpr int64_t kChunksPerThread = 2, kMinStripRows = 14;

bool is_conv(std::string_view op) { return op == "lepton.Conv" || op == "lepton.QLinearConv"; }

int residual_operand(std::string_view op) {
  return op == "lepton.Conv" ? kFloatResidual : kConvResidual;
}

bool is_pointwise(const ConvAttrs& conv) {
  const Window& w = conv.window;
  for (int a = 0; a < kSpatial; ++a)
    if (w.kernel[a] != 1 || w.stride[a] != 1 || w.pad_begin[a] != 0 || w.pad_end[a] != 0)
      return false;
  return w.rank == 2 && conv.group == 1 && conv.channels_last;
}

bool is_depthwise(const ConvAttrs& conv) {
  const Window& w = conv.window;
  return w.rank == 2 && w.auto_pad == AutoPad::kExplicit && w.pad_begin[1] == 0 &&
         w.pad_end[1] == 0 && conv.channels_last && conv.group > 1 &&
         conv.group == conv.in_channels && conv.group == conv.out_channels;
}

// One band. `window`: the rows of the depthwise input that lie in the thread's memory.
struct Band {
  int64_t keep_from, keep;                      // rows of the window before, moved to its beginning
  int64_t pad_before, first, count, pad_after;  // new ones: padding, image rows, padding
  int64_t out_first, out_count;
  int run[3];  // of every step: BandPlan::runs; -1: nothing to do
};
struct Strip {
  size_t first, last;  // of BandPlan::bands
};

// The operator bound to shapes.
struct BandPlan {
  int64_t batch = 0, height = 0, out_height = 0, window_rows = 0;
  size_t in_row = 0, window_row = 0, middle_row = 0, out_row = 0;  // bytes
  std::vector<RunFn> runs;
  std::vector<Band> bands;
  std::vector<Strip> strips;
  bool inside = false;  // the steps use the threads, one after the other
  size_t middle_at = 0, scratch_at = 0, bytes = 0;  // a thread's memory
};

class ConvBandsOp final : public Op {
 public:
  JoinedSteps joined;
  std::vector<ConvAttrs> conv;
  size_t depthwise = 0;  // which of the steps
  int64_t pad_top = 0, pad_bottom = 0;
  uint8_t padding = 0;  // every byte of it

  Status read(const StepDesc& step);
  Status bind(BindContext& context) const override;

 private:
  const Window& window() const { return conv[depthwise].window; }
  bool has_consumer() const { return depthwise + 1 < joined.steps.size(); }
  int residual() const;
  Status check_chain(const StepDesc& step) const;
  Status find_shapes(const BindContext& context, Shape* wide, Shape* middle, Shape* y) const;
  void cut(int threads, BandPlan* plan) const;
  void add_strip(int64_t first, int64_t last, int64_t rows, BandPlan* plan) const;
  Status bind_steps(const BindContext& context, const Shape& wide, const Shape& middle,
                    BandPlan* plan) const;
  Status bind_step(const BindContext& context, size_t step, const Shape& x, int threads, RunFn* run,
                   size_t* scratch) const;
  void lay_out(size_t scratch, BandPlan* plan) const;
  void run_strip(const BandPlan& plan, int64_t image, const Strip& strip, std::byte* memory,
                 const RunArgs& args) const;
  void run_step(const BandPlan& plan, size_t step, int run, const void* x, const void* residual,
                void* y, std::byte* memory, const RunArgs& args) const;
};

// The input of the joined step that the last convolution adds, or -1.
int ConvBandsOp::residual() const {
  const JoinedStep& last = joined.steps.back();
  const size_t at = static_cast<size_t>(residual_operand(last.name));
  return at < last.in.size() ? last.in[at] : -1;
}

Status ConvBandsOp::check_chain(const StepDesc& step) const {
  if (joined.steps.size() < 2 || joined.steps.size() > 3 || joined.results.size() != 1 ||
      joined.results[0] + 1 != joined.values.size())
    return invalid_model("joined convolutions are two or three with one result");
  const int inputs = static_cast<int>(joined.num_inputs());
  for (size_t i = 0; i < joined.steps.size(); ++i) {
    const JoinedStep& s = joined.steps[i];
    const size_t residual = static_cast<size_t>(residual_operand(s.name));
    if (s.name != joined.steps[0].name || s.out.size() != 1)
      return invalid_model("joined convolutions are of one kind");
    for (size_t j = 0; j < s.in.size(); ++j) {
      const bool made = s.in[j] >= inputs;
      const bool chained = j == 0 && i > 0;
      if (made != chained || (chained && s.in[0] != inputs + static_cast<int>(i) - 1))
        return invalid_model("joined convolutions read each other's results only");
      if (made || s.in[j] < 0) continue;
      const bool cut = j == 0 || j == residual;
      if (joined.cut[static_cast<size_t>(s.in[j])] != cut ||
          step.inputs[static_cast<size_t>(s.in[j])].constant == cut)
        return invalid_model("an operand of joined convolutions is cut that must not be, or not");
      if (j == residual && (i == 0 || i + 1 < joined.steps.size()))
        return invalid_model("only the last of joined convolutions adds a residual");
    }
    if (s.in.empty() || s.in[0] < 0) return invalid_model("a joined convolution has no X");
  }
  return {};
}

Status ConvBandsOp::read(const StepDesc& step) {
  LEPTON_RETURN_IF_ERROR(joined.init(step, is_conv));
  LEPTON_RETURN_IF_ERROR(check_chain(step));
  for (const JoinedStep& s : joined.steps) {
    conv.emplace_back();
    LEPTON_RETURN_IF_ERROR(parse_conv(s.attrs, step.isa, &conv.back()));
  }
  depthwise = is_depthwise(conv[0]) ? 0 : 1;
  for (size_t i = 0; i < conv.size(); ++i)
    if (i == depthwise ? !is_depthwise(conv[i]) : !is_pointwise(conv[i]))
      return invalid_model("joined convolutions are 1x1, depthwise, 1x1");
  if (residual() >= 0 && !has_consumer())
    return invalid_model("a joined depthwise convolution adds a residual");
  const Attrs::Ints pads = step.attrs->ints("pad_rows");
  if (pads.size != 2) return invalid_model("pad_rows are two numbers");
  pad_top = pads.data[0];
  pad_bottom = pads.data[1];
  const int64_t most = window().extent(1);
  if (pad_top < 0 || pad_bottom < 0 || pad_top > most || pad_bottom > most)
    return invalid_model("pad_rows are out of range");
  padding = static_cast<uint8_t>(joined.steps[depthwise].attrs.i("x_zero_point", 0));
  return {};
}

// wide: a padded image of the depthwise input; middle: the depthwise result; y: the last one.
Status ConvBandsOp::find_shapes(const BindContext& context, Shape* wide, Shape* middle,
                                Shape* y) const {
  const Shape& x = context.input(joined.steps[0].in[0]).shape;
  ConvShape shape;
  LEPTON_RETURN_IF_ERROR(resolve_conv(conv[0], x, &shape));
  *wide = {1, x[1] + pad_top + pad_bottom, x[2], conv[depthwise].in_channels};
  LEPTON_RETURN_IF_ERROR(resolve_conv(conv[depthwise], *wide, &shape));
  *middle = shape.y;
  *y = {x[0], shape.y[1], shape.y[2], conv.back().out_channels};
  if (has_consumer()) LEPTON_RETURN_IF_ERROR(resolve_conv(conv.back(), *middle, &shape));
  if (!is_valid(*y)) return invalid_input("the result would be too large");
  if (residual() >= 0 && context.input(residual()).shape != *y)
    return invalid_input("the residual has shape " + context.input(residual()).shape.str() +
                         ", the result " + y->str());
  return {};
}

// The bands of output rows [first, last), `rows` each.
void ConvBandsOp::add_strip(int64_t first, int64_t last, int64_t rows, BandPlan* plan) const {
  const int64_t stride = window().stride[1], extent = window().extent(1);
  const Strip strip = {plan->bands.size(), plan->bands.size() + (last - first + rows - 1) / rows};
  int64_t start = 0, have = 0;  // the rows in the window; above the image they are negative
  for (int64_t o = first; o < last; o += rows) {
    Band band{};
    band.out_first = o;
    band.out_count = std::min(rows, last - o);
    const int64_t begin = o * stride - pad_top;
    const int64_t end = begin + (band.out_count - 1) * stride + extent;
    if (o == first) start = have = begin;
    band.keep = std::max<int64_t>(0, have - begin);
    band.keep_from = begin - start;
    const int64_t from = std::max(have, begin);
    band.pad_before = std::max<int64_t>(0, std::min<int64_t>(end, 0) - from);
    band.pad_after = std::max<int64_t>(0, end - std::max(from, plan->height));
    band.first = from + band.pad_before;
    band.count = end - from - band.pad_before - band.pad_after;
    plan->window_rows = std::max(plan->window_rows, end - begin);
    plan->bands.push_back(band);
    start = begin;
    have = end;
  }
  plan->strips.push_back(strip);
}

void ConvBandsOp::cut(int threads, BandPlan* plan) const {
  const int64_t rows = plan->out_height, images = plan->batch;
  if (rows == 0 || images == 0) return;
  const int64_t wanted = threads > 1 ? kChunksPerThread * threads : 1;
  const int64_t most = std::max<int64_t>(1, rows / kMinStripRows);
  const int64_t strips = std::min((wanted + images - 1) / images, most);
  plan->inside = threads > 1 && images * strips < threads;
  const int64_t strip_rows = plan->inside ? rows : (rows + strips - 1) / strips;
  // (n − 1) · stride + extent rows of the window and n of the result in between, for n rows.
  const int64_t stride = window().stride[1], extent = window().extent(1);
  const size_t row = static_cast<size_t>(stride) * plan->window_row + plan->middle_row;
  const size_t rest = static_cast<size_t>(std::max<int64_t>(0, extent - stride)) * plan->window_row;
  const size_t room = kBandBytes > rest ? kBandBytes - rest : 0;
  int64_t band = std::max<int64_t>(1, static_cast<int64_t>(room / std::max<size_t>(row, 1)));
  if (plan->inside || band > strip_rows) band = strip_rows;
  const int64_t bands = (strip_rows + band - 1) / band;
  band = (strip_rows + bands - 1) / bands;
  for (int64_t first = 0; first < rows; first += strip_rows)
    add_strip(first, std::min(first + strip_rows, rows), band, plan);
}

Status ConvBandsOp::bind_step(const BindContext& context, size_t step, const Shape& x, int threads,
                              RunFn* run, size_t* scratch) const {
  const JoinedStep& joined_step = joined.steps[step];
  std::vector<TensorInfo> inputs;
  for (size_t j = 0; j < joined_step.in.size(); ++j) {
    TensorInfo info;
    const int id = joined_step.in[j];
    if (id >= 0 && id < static_cast<int>(joined.num_inputs())) info = context.input(id);
    if (j == 0) {
      info.dtype = step == 0 ? info.dtype : joined.values[step - 1];
      info.present = true;
      info.shape = x;
      info.data = nullptr;
    } else if (id >= 0 && joined.cut[static_cast<size_t>(id)]) {
      info.shape = {1, x[1], x[2], conv[step].out_channels};
      info.data = nullptr;
    }
    inputs.push_back(info);
  }
  JoinedBinder binder(std::move(inputs), {joined.values[step]}, threads);
  LEPTON_RETURN_IF_ERROR(joined_step.op->bind(binder));
  if (!binder.run) return internal_error("a joined step does not run");
  *scratch = std::max(*scratch, binder.scratch);
  *run = std::move(binder.run);
  return {};
}

// Binds every step once for each number of rows that it gets.
Status ConvBandsOp::bind_steps(const BindContext& context, const Shape& wide, const Shape& middle,
                               BandPlan* plan) const {
  struct Bound {
    size_t step;
    int64_t rows;
  };
  std::vector<Bound> bound;
  const int threads = plan->inside ? context.threads() : 1;
  const int64_t stride = window().stride[1], extent = window().extent(1);
  size_t scratch = 0;
  for (Band& band : plan->bands) {
    for (size_t step = 0; step < joined.steps.size(); ++step) {
      Shape x = step < depthwise ? context.input(joined.steps[0].in[0]).shape : wide;
      if (step > depthwise) x = middle;
      x[0] = 1;
      x[1] = step < depthwise    ? band.count
             : step == depthwise ? (band.out_count - 1) * stride + extent
                                 : band.out_count;
      band.run[step] = -1;
      if (x[1] == 0) continue;
      const auto found = std::find_if(bound.begin(), bound.end(), [&](const Bound& b) {
        return b.step == step && b.rows == x[1];
      });
      band.run[step] = static_cast<int>(found - bound.begin());
      if (found != bound.end()) continue;
      bound.push_back({step, x[1]});
      plan->runs.emplace_back();
      LEPTON_RETURN_IF_ERROR(bind_step(context, step, x, threads, &plan->runs.back(), &scratch));
    }
  }
  lay_out(scratch, plan);
  return {};
}

// scratch: of any step.
void ConvBandsOp::lay_out(size_t scratch, BandPlan* plan) const {
  int64_t most = 0;
  for (const Band& band : plan->bands) most = std::max(most, band.out_count);
  const size_t window_bytes = static_cast<size_t>(plan->window_rows) * plan->window_row;
  const size_t middle_bytes = static_cast<size_t>(most) * plan->middle_row;
  plan->middle_at = round_up(window_bytes, kCacheLine);
  plan->scratch_at = plan->middle_at + round_up(middle_bytes, kCacheLine);
  plan->bytes = plan->scratch_at + round_up(scratch, kCacheLine);
}

Status ConvBandsOp::bind(BindContext& context) const {
  Shape wide, middle, y;
  LEPTON_RETURN_IF_ERROR(find_shapes(context, &wide, &middle, &y));
  LEPTON_RETURN_IF_ERROR(context.set_output(0, y));
  const TensorInfo& x = context.input(joined.steps[0].in[0]);
  const auto row_bytes = [](const Shape& shape, DType dtype) {
    return static_cast<size_t>(shape[2] * shape[3]) * size_of(dtype);
  };
  auto plan = std::make_shared<BandPlan>();
  plan->batch = x.shape[0];
  plan->height = x.shape[1];
  plan->out_height = y[1];
  plan->in_row = row_bytes(x.shape, x.dtype);
  plan->window_row = row_bytes(wide, depthwise == 0 ? x.dtype : joined.values[0]);
  plan->middle_row = has_consumer() ? row_bytes(middle, joined.values[depthwise]) : 0;
  plan->out_row = row_bytes(y, joined.values.back());
  cut(context.threads(), plan.get());
  LEPTON_RETURN_IF_ERROR(bind_steps(context, wide, middle, plan.get()));
  context.set_scratch(plan->bytes * static_cast<size_t>(plan->inside ? 1 : context.threads()));
  context.set_run([this, plan](const RunArgs& args) {
    const auto strips = static_cast<int64_t>(plan->strips.size());
    const auto body = [&](int64_t i, int thread) {
      run_strip(*plan, i / strips, plan->strips[static_cast<size_t>(i % strips)],
                args.scratch + static_cast<size_t>(thread) * plan->bytes, args);
    };
    (plan->inside ? Parallel() : args.parallel).loop(plan->batch * strips, body);
    return Status();
  });
  return {};
}

void ConvBandsOp::run_strip(const BandPlan& plan, int64_t image, const Strip& strip,
                            std::byte* memory, const RunArgs& args) const {
  const auto rows = [](const void* base, int64_t row, size_t bytes) {
    return static_cast<std::byte*>(const_cast<void*>(base)) + static_cast<size_t>(row) * bytes;
  };
  const void* const x = args.in[joined.steps[0].in[0]];
  const void* const added = residual() < 0 ? nullptr : args.in[residual()];
  for (size_t b = strip.first; b < strip.last; ++b) {
    const Band& band = plan.bands[b];
    const size_t row = plan.window_row;
    if (band.keep > 0 && band.keep_from > 0)
      std::memmove(memory, rows(memory, band.keep_from, row), static_cast<size_t>(band.keep) * row);
    std::byte* const top = rows(memory, band.keep, row);
    std::memset(top, padding, static_cast<size_t>(band.pad_before) * row);
    std::byte* const made = rows(top, band.pad_before, row);
    const void* const from = rows(x, image * plan.height + band.first, plan.in_row);
    if (depthwise == 0)
      std::memcpy(made, from, static_cast<size_t>(band.count) * row);
    else if (band.count > 0)
      run_step(plan, 0, band.run[0], from, nullptr, made, memory, args);
    std::memset(rows(made, band.count, row), padding, static_cast<size_t>(band.pad_after) * row);
    const int64_t at = image * plan.out_height + band.out_first;
    std::byte* const y = rows(args.out[0], at, plan.out_row);
    const void* const r = added == nullptr ? nullptr : rows(added, at, plan.out_row);
    std::byte* const middle = has_consumer() ? memory + plan.middle_at : y;
    run_step(plan, depthwise, band.run[depthwise], memory, nullptr, middle, memory, args);
    if (has_consumer())
      run_step(plan, depthwise + 1, band.run[depthwise + 1], middle, r, y, memory, args);
  }
}

void ConvBandsOp::run_step(const BandPlan& plan, size_t step, int run, const void* x,
                           const void* residual, void* y, std::byte* memory,
                           const RunArgs& args) const {
  const JoinedStep& joined_step = joined.steps[step];
  const void* in[kMaxJoinedOperands];
  in[0] = x;
  for (size_t j = 1; j < joined_step.in.size(); ++j) {
    const int id = joined_step.in[j];
    const bool cut = id >= 0 && joined.cut[static_cast<size_t>(id)];
    in[j] = id < 0 ? nullptr : cut ? residual : args.in[id];
  }
  void* out[] = {y};
  (void)plan.runs[static_cast<size_t>(run)](
      RunArgs{in, out, memory + plan.scratch_at, plan.inside ? args.parallel : Parallel()});
}

}  // namespace

Status make_conv_bands(const StepDesc& step, std::unique_ptr<Op>* op) {
  auto made = std::make_unique<ConvBandsOp>();
  LEPTON_RETURN_IF_ERROR(made->read(step));
  *op = std::move(made);
  return {};
}

}  // namespace lepton
