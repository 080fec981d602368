// The weights of a recurrent layer (W or R) as the right-hand sides of its products.
//
// One direction's matrix [columns][k] multiplies rows of k floats. Its columns may be cut into
// pieces that are multiplied at different times (the gates z, r and h of a GRU). Packed for the
// kernel, the pieces of a direction follow one another, and the directions too. Integer weights
// multiply rows that are quantised on the way, each by itself to uint8 over its own range.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ops/gemm.h"
#include "ops/gemm_lhs.h"
#include "ops/lstm_step_kernels.h"
#include "ops/op.h"
#include "ops/rnn_activation.h"
#include "ops/row_quantizer.h"

namespace lepton {

struct RnnMatrixShape {
  size_t directions, columns, k;
  size_t first_piece;  // columns of the first piece; the second has the rest, if any
  int pieces() const { return first_piece < columns ? 2 : 1; }
  size_t begin(int piece) const { return piece == 0 ? 0 : first_piece; }
  size_t size(int piece) const { return piece == 0 ? first_piece : columns - first_piece; }
};

// For one set of shapes: where the packed pieces lie, and the scratch of a run.
struct BoundRnnMatrix {
  RnnMatrixShape shape;
  size_t piece_bytes[2], direction_bytes;
  size_t panel_stride = 0;  // integer weights
  size_t scale_entries = 0, zero_point_entries = 0;
  size_t scratch_bytes;  // shared by all threads: packed weights and scales of this run
};

// The weights during one run.
struct RnnMatrixRun {
  const std::byte* packed;
  const float* scale;  // [directions][columns], integer weights only
};

// dst[i][j] = rows[i] · piece[j] + bias[j] + residual[i][j]; bias and residual may be null.
struct RnnProduct {
  size_t direction;
  int piece;
  size_t m;
  const float* rows;
  size_t row_stride;
  const float* bias;
  const float* residual;
  size_t residual_stride;
  float* dst;
  size_t dst_stride;
  std::byte* scratch;  // product_scratch(m, k) bytes
};

// An LSTM's step (lstm_step.h): h is quantised, multiplied by all of R, and replaced.
struct RnnLstmStep {
  size_t direction, m;
  const float* projected;
  float* c;
  float* h;
  std::byte* scratch;  // product_scratch(m, k) bytes
};

class RnnMatrix {
 public:
  // Operands: the weights [directions, columns, k], or with attribute packed = 1 the bytes that
  // `lower` packed for the kernel (empty: the preferred one); for integer weights their scale and
  // zero point (-1: float weights).
  Status init(const StepDesc& step, std::string_view kernel, int weights, int scale,
              int zero_point);

  // Packed weights [4 · hidden columns, hidden] whose columns are interleaved as lstm_step.h says.
  Status init_interleaved(Isa isa);

  bool is_packed() const { return packed_; }
  // Whether threads should share an LSTM's step of so many multiplications, and what comes with it.
  bool pays_to_share(size_t products) const;
  bool is_interleaved() const { return lstm_step_ != nullptr; }
  Status bind(BindContext& context, const RnnMatrixShape& shape, BoundRnnMatrix* bound) const;
  // Packs what came unpacked.
  RnnMatrixRun prepare(const BoundRnnMatrix& bound, const RunArgs& args, std::byte* scratch) const;
  size_t product_scratch(size_t m, size_t k) const;
  void multiply(const BoundRnnMatrix& bound, const RnnMatrixRun& run, const RnnProduct& product,
                Parallel parallel) const;
  void lstm_step(const BoundRnnMatrix& bound, const RnnMatrixRun& run, const RnnLstmStep& step,
                 Parallel parallel) const;
  size_t mr() const;

 private:
  Status count_entries(BindContext& context, int operand, const RnnMatrixShape& shape,
                       const char* what, size_t* entries) const;
  Status lay_out(size_t given, BoundRnnMatrix* bound) const;
  Status check_packed(const BoundRnnMatrix& bound, const TensorInfo& given) const;
  void pack(const BoundRnnMatrix& bound, const RunArgs& args, size_t direction, int piece,
            std::byte* to) const;
  void multiply_f32(const BoundRnnMatrix& bound, const std::byte* packed, const RnnProduct& product,
                    Parallel parallel) const;
  void multiply_s8(const BoundRnnMatrix& bound, const std::byte* packed, const float* scale,
                   const RnnProduct& product, Parallel parallel) const;

  std::string name_;
  int weights_ = 0, scale_ = -1, zero_point_ = -1;
  bool packed_ = false, integer_ = false, signed_ = false;
  const GemmF32KernelInfo* f32_ = nullptr;
  const GemmS8KernelInfo* s8_ = nullptr;
  EpilogueF32Kernel epilogue_f32_ = nullptr;
  EpilogueS8Kernel epilogue_s8_ = nullptr;
  GemmS8Lhs lhs_;
  RowQuantizer quantizer_;
  const LstmStepKernelInfo* lstm_step_ = nullptr;
};

}  // namespace lepton
