#include "ops/rnn_matrix.h"

#include <algorithm>
#include <limits>

#include "ops/gemm_driver.h"
#include "ops/kernel_list.h"
#include "ops/requantize.h"

namespace lepton {
namespace {

// A step of half as many takes 2 µs; shared, half of them, and 1 µs to hand states and projected
// inputs from one processor to the other.
constexpr size_t kSharedVnniStep = size_t{512} * 1024;

// Entry of one per tensor, one per direction or one per column of every direction.
size_t entry_of(size_t entries, const RnnMatrixShape& shape, size_t direction, size_t column) {
  if (entries == shape.directions * shape.columns) return direction * shape.columns + column;
  return entries == shape.directions ? direction : 0;
}

}  // namespace

Status RnnMatrix::init(const StepDesc& step, std::string_view kernel, int weights, int scale,
                       int zero_point) {
  name_ = step.name;
  weights_ = weights;
  integer_ = scale >= 0;
  packed_ = step.attrs->i("packed") != 0;
  const TensorInfo& w = step.inputs[static_cast<size_t>(weights)];
  if (packed_ && (!w.constant || w.dtype != DType::kU8))
    return invalid_model(name_ + ": packed weights are not a constant");
  if (!integer_) {
    if (!packed_ && w.dtype != DType::kF32)
      return unsupported(name_ + ": weights of " + name_of(w.dtype));
    f32_ = kernel.empty() ? gemm_f32_kernels().best(step.isa) : gemm_f32_kernels().find(kernel);
    epilogue_f32_ = best_epilogue_f32(step.isa);
    if (f32_ == nullptr) return invalid_model(name_ + ": its kernel does not run here");
    return {};
  }
  scale_ = scale;
  signed_ = w.dtype == DType::kS8;
  if (!is_8_bit(w.dtype)) return unsupported(name_ + ": weights of " + name_of(w.dtype));
  if (!step.has_input(static_cast<size_t>(scale)) ||
      step.inputs[static_cast<size_t>(scale)].dtype != DType::kF32)
    return invalid_model(name_ + ": the scale of its weights is not float32");
  if (step.has_input(static_cast<size_t>(zero_point))) {
    zero_point_ = zero_point;
    if (packed_ || step.inputs[static_cast<size_t>(zero_point)].dtype != w.dtype)
      return invalid_model(name_ + ": the zero point does not fit the weights");
  }
  // Without a look at the values: signed ones without a zero point are what they are.
  s8_ = kernel.empty() ? &best_gemm_s8(step.isa, signed_ && zero_point_ < 0)
                       : gemm_s8_kernels().find(kernel);
  if (s8_ == nullptr) return invalid_model(name_ + ": its kernel does not run here");
  const GemmS8Form form = s8_->form;
  if (!packed_ && (form == GemmS8Form::kU8Runs || form == GemmS8Form::kU8Pairs))
    return invalid_model(name_ + ": its kernel needs packed weights");
  epilogue_s8_ = best_epilogue_s8(EpilogueS8Kind::kF32, step.isa);
  lhs_ = GemmS8Lhs(*s8_, false, step.isa);
  quantizer_ = RowQuantizer(lhs_, step.isa);
  return {};
}

Status RnnMatrix::init_interleaved(Isa isa) {
  lstm_step_ = packed_ && integer_ ? find_lstm_step(*s8_, isa) : nullptr;
  if (lstm_step_ != nullptr && lstm_step_kernels().is_runnable(*lstm_step_)) return {};
  return invalid_model(name_ + ": interleaved weights that no kernel reads");
}

bool RnnMatrix::pays_to_share(size_t products) const {
  const bool by_vnni = is_interleaved() && s8_->form == GemmS8Form::kU8;
  return !by_vnni || products >= kSharedVnniStep;
}

size_t RnnMatrix::mr() const { return static_cast<size_t>(integer_ ? s8_->mr : f32_->mr); }

Status RnnMatrix::count_entries(BindContext& context, int operand, const RnnMatrixShape& shape,
                                const char* what, size_t* entries) const {
  const Shape& given = context.input(operand).shape;
  *entries = static_cast<size_t>(given.elements());
  if (*entries == 1 || *entries == shape.directions || *entries == shape.directions * shape.columns)
    return {};
  return invalid_input(name_ + ": " + what + " " + given.str() +
                       " holds neither one entry, nor one per direction or column");
}

// The bytes of each piece, and for integer weights how far apart their panels are. Packed in runs,
// all panels are equally long.
Status RnnMatrix::lay_out(size_t given, BoundRnnMatrix* bound) const {
  const RnnMatrixShape& shape = bound->shape;
  const bool runs = integer_ && s8_->form == GemmS8Form::kU8Runs;
  size_t panels = 0;
  for (int piece = 0; piece < shape.pieces() && runs; ++piece)
    panels += gemm_panels(*s8_, shape.size(piece)) * shape.directions;
  bound->piece_bytes[1] = 0;
  for (int piece = 0; piece < shape.pieces(); ++piece) {
    const int64_t k = static_cast<int64_t>(shape.k), n = static_cast<int64_t>(shape.size(piece));
    size_t* const bytes = &bound->piece_bytes[piece];
    if (!integer_) {
      LEPTON_RETURN_IF_ERROR(gemm_packed_size(*f32_, k, n, bytes));
      continue;
    }
    GemmS8Layout layout;
    LEPTON_RETURN_IF_ERROR(gemm_s8_layout(*s8_, k, n, &layout));
    if (runs) {
      layout.panel_stride = panels == 0 ? 0 : given / panels;
      layout.matrix_bytes = layout.panel_stride * gemm_panels(*s8_, shape.size(piece));
    }
    bound->panel_stride = layout.panel_stride;
    *bytes = layout.matrix_bytes;
  }
  bound->direction_bytes = bound->piece_bytes[0] + bound->piece_bytes[1];
  return {};
}

Status RnnMatrix::check_packed(const BoundRnnMatrix& bound, const TensorInfo& given) const {
  const RnnMatrixShape& shape = bound.shape;
  const size_t all = bound.direction_bytes * shape.directions;
  if (static_cast<size_t>(given.shape.elements()) != all)
    return invalid_model(name_ + ": packed weights hold " + std::to_string(given.shape.elements()) +
                         " bytes instead of " + std::to_string(all));
  if (!integer_) return {};
  const std::byte* piece_at = static_cast<const std::byte*>(given.data);
  for (size_t d = 0; d < shape.directions; ++d)
    for (int piece = 0; piece < shape.pieces(); piece_at += bound.piece_bytes[piece++]) {
      GemmS8Layout layout;
      LEPTON_RETURN_IF_ERROR(check_packed_s8(*s8_, static_cast<int64_t>(shape.k),
                                             static_cast<int64_t>(shape.size(piece)), 1, piece_at,
                                             bound.piece_bytes[piece], &layout));
    }
  return {};
}

Status RnnMatrix::bind(BindContext& context, const RnnMatrixShape& shape,
                       BoundRnnMatrix* bound) const {
  bound->shape = shape;
  if (is_interleaved() && (shape.columns != 4 * shape.k || shape.k % lstm_step_->units() != 0))
    return invalid_model(name_ + ": interleaved weights of " + std::to_string(shape.k) + " units");
  const TensorInfo& given = context.input(weights_);
  LEPTON_RETURN_IF_ERROR(lay_out(static_cast<size_t>(given.shape.elements()), bound));
  if (packed_) LEPTON_RETURN_IF_ERROR(check_packed(*bound, given));
  bound->scratch_bytes = packed_ ? 0 : bound->direction_bytes * shape.directions;
  if (integer_)
    bound->scratch_bytes += round_up(shape.directions * shape.columns * sizeof(float), kCacheLine);
  if (integer_)
    LEPTON_RETURN_IF_ERROR(count_entries(context, scale_, shape, "scale", &bound->scale_entries));
  if (zero_point_ < 0) return {};
  return count_entries(context, zero_point_, shape, "zero point", &bound->zero_point_entries);
}

void RnnMatrix::pack(const BoundRnnMatrix& bound, const RunArgs& args, size_t direction, int piece,
                     std::byte* to) const {
  const RnnMatrixShape& shape = bound.shape;
  const size_t first = (direction * shape.columns + shape.begin(piece)) * shape.k;
  if (!integer_) {
    PackGemmF32 pack = {};
    pack.k = shape.k;
    pack.n = shape.size(piece);
    pack.b = args.input<float>(weights_) + first;
    pack.row_stride = 1;
    pack.column_stride = shape.k;
    pack.packed = reinterpret_cast<float*>(to);
    pack_gemm_f32(*f32_, pack, 0, gemm_panels(*f32_, pack.n));
    return;
  }
  PackGemmS8 pack = {};
  pack.k = shape.k;
  pack.n = shape.size(piece);
  pack.b = args.input<uint8_t>(weights_) + first;
  pack.b_signed = signed_;
  pack.row_stride = 1;
  pack.column_stride = shape.k;
  pack.packed = to;
  if (zero_point_ >= 0) {
    const size_t entries = bound.zero_point_entries, column = shape.begin(piece);
    pack.zero_points =
        args.input<uint8_t>(zero_point_) + entry_of(entries, shape, direction, column);
    pack.zero_point_stride = entries == shape.directions * shape.columns ? 1 : 0;
  }
  pack_gemm_s8(*s8_, pack, 0, gemm_panels(*s8_, pack.n));
}

RnnMatrixRun RnnMatrix::prepare(const BoundRnnMatrix& bound, const RunArgs& args,
                                std::byte* scratch) const {
  const RnnMatrixShape& shape = bound.shape;
  RnnMatrixRun run = {static_cast<const std::byte*>(args.in[weights_]), nullptr};
  std::byte* to = scratch;
  if (!packed_) {
    run.packed = scratch;
    for (size_t d = 0; d < shape.directions; ++d)
      for (int piece = 0; piece < shape.pieces(); to += bound.piece_bytes[piece++])
        pack(bound, args, d, piece, to);
  }
  if (!integer_) return run;
  const float* const given = args.input<float>(scale_);
  if (bound.scale_entries == shape.directions * shape.columns) return {run.packed, given};
  float* const scale = reinterpret_cast<float*>(to);
  for (size_t d = 0; d < shape.directions; ++d)
    for (size_t j = 0; j < shape.columns; ++j)
      scale[d * shape.columns + j] = given[entry_of(bound.scale_entries, shape, d, j)];
  run.scale = scale;
  return run;
}

size_t RnnMatrix::product_scratch(size_t m, size_t k) const {
  return integer_ ? quantizer_.scratch_bytes(m, k) : 0;
}

void RnnMatrix::multiply(const BoundRnnMatrix& bound, const RnnMatrixRun& run,
                         const RnnProduct& product, Parallel parallel) const {
  const std::byte* const packed = run.packed + product.direction * bound.direction_bytes +
                                  (product.piece == 0 ? 0 : bound.piece_bytes[0]);
  if (!integer_) return multiply_f32(bound, packed, product, parallel);
  const size_t column = product.direction * bound.shape.columns + bound.shape.begin(product.piece);
  multiply_s8(bound, packed, run.scale + column, product, parallel);
}

void RnnMatrix::multiply_f32(const BoundRnnMatrix& bound, const std::byte* packed,
                             const RnnProduct& product, Parallel parallel) const {
  GemmF32Plan plan = {};
  plan.kernel = f32_;
  plan.epilogue = epilogue_f32_;
  plan.k = bound.shape.k;
  plan.n = bound.shape.size(product.piece);
  plan.packed = reinterpret_cast<const float*>(packed);
  plan.bias = product.bias;
  plan.min = -std::numeric_limits<float>::infinity();
  plan.max = std::numeric_limits<float>::infinity();
  const GemmGrid grid = gemm_grid(product.m, gemm_panels(*f32_, plan.n), f32_->mr,
                                  plan.k * sizeof(float), parallel.threads());
  parallel.loop(grid.chunks(), [&](int64_t i, int) {
    const GemmChunk chunk = grid.chunk(i);
    GemmF32Block block = {};
    block.m = chunk.rows;
    block.rows = product.rows + chunk.row * product.row_stride;
    block.row_stride = product.row_stride;
    block.first = chunk.first;
    block.last = chunk.last;
    if (product.residual != nullptr)
      block.residual = product.residual + chunk.row * product.residual_stride;
    block.residual_stride = product.residual_stride;
    block.dst = product.dst + chunk.row * product.dst_stride;
    block.dst_stride = product.dst_stride;
    gemm_f32_block(plan, block);
  });
}

void RnnMatrix::multiply_s8(const BoundRnnMatrix& bound, const std::byte* packed,
                            const float* scale, const RnnProduct& product,
                            Parallel parallel) const {
  GemmS8Plan plan = {};
  plan.kernel = s8_;
  plan.epilogue = epilogue_s8_;
  plan.k = bound.shape.k;
  plan.n = bound.shape.size(product.piece);
  plan.packed = packed;
  plan.panel_stride = bound.panel_stride;
  plan.scale = scale;
  plan.float_bias = product.bias;
  plan.min = -std::numeric_limits<float>::infinity();
  plan.max = std::numeric_limits<float>::infinity();
  plan.dst_size = sizeof(float);
  const RowQuantizer::Rows q = quantizer_.quantize(product.rows, product.m, plan.k,
                                                   product.row_stride, product.scratch, parallel);
  const GemmGrid grid =
      gemm_grid(product.m, gemm_panels(*s8_, plan.n), s8_->mr, q.stride, parallel.threads());
  parallel.loop(grid.chunks(), [&](int64_t c, int) {
    const GemmChunk chunk = grid.chunk(c);
    GemmS8Block block = {};
    block.m = chunk.rows;
    block.rows = q.rows + chunk.row * q.stride;
    block.row_stride = lhs_.row_stride(plan.k);
    if (q.zero_point != nullptr) block.zero_points = q.zero_point + chunk.row;
    block.first = chunk.first;
    block.last = chunk.last;
    block.row_scale = q.scale + chunk.row;
    if (product.residual != nullptr)
      block.residual = product.residual + chunk.row * product.residual_stride;
    block.residual_stride = product.residual_stride;
    block.dst = product.dst + chunk.row * product.dst_stride;
    block.dst_stride = product.dst_stride;
    gemm_s8_block(plan, block);
  });
}

void RnnMatrix::lstm_step(const BoundRnnMatrix& bound, const RnnMatrixRun& run,
                          const RnnLstmStep& step, Parallel parallel) const {
  const size_t n = bound.shape.k;
  const RowQuantizer::Rows q = quantizer_.quantize(step.h, step.m, n, n, step.scratch, parallel);
  LstmStepParams params = {};
  params.k = gemm_k_padded(*s8_, n);
  params.hidden = n;
  params.row_stride = q.stride;
  params.packed = run.packed + step.direction * bound.direction_bytes;
  params.panel_stride = bound.panel_stride;
  params.scale = run.scale + step.direction * bound.shape.columns;
  const auto run_part = [&](const GemmChunk& chunk) {
    LstmStepParams part = params;
    part.m = chunk.rows;
    part.rows = reinterpret_cast<const uint8_t*>(q.rows + chunk.row * q.stride);
    part.zero_points = q.zero_point + chunk.row;
    part.row_scale = q.scale + chunk.row;
    part.first = chunk.first;
    part.last = chunk.last;
    part.projected = step.projected + chunk.row * 4 * n;
    part.c = step.c + chunk.row * n;
    part.h = step.h + chunk.row * n;
    lstm_step_->run(part);
  };
  const size_t panels = gemm_panels(*s8_, 4 * n);
  if (parallel.threads() == 1) return run_part({0, step.m, 0, panels});
  const GemmGrid grid = gemm_grid(step.m, panels, s8_->mr, q.stride, parallel.threads());
  parallel.loop(grid.chunks(), [&](int64_t i, int) { run_part(grid.chunk(i)); });
}

}  // namespace lepton
