// A program bound to shapes: how the index space is cut into tiles, how each input reaches its
// register, where each value lives.
//
// Dimensions along which every operand moves alike are merged first. A tile is a contiguous range
// of the output: the trailing dimensions that fit together with `rows` rows of the dimension before
// them (dims[split]). So over a tile an input is contiguous (read in place when it is stored in the
// compute type, else converted), or one value (a splat), or it is expanded into its register by
// copying runs; an expanded register is kept while the next tiles would expand to the same.
#pragma once

#include <cstdint>
#include <vector>

#include "core/shape.h"
#include "ops/convert.h"
#include "ops/elementwise_program.h"
#include "ops/op.h"

namespace lepton {

struct BoundInput {
  enum Mode { kContiguous, kSplat, kExpand } mode;
  size_t element_size;
  ConvertFn load;             // null when stored in the compute type
  int64_t strides[kMaxRank];  // of the merged dimensions, in elements; 0 where broadcast
};

struct BoundInstruction {
  MicroFn fn;
  uint32_t splat;
  bool once;  // all operands are splats: compute one element
  int num_operands;
  int operand[kMaxOperands];
  int result;
};

class BoundElementwise {
 public:
  // `stored`: dtypes of the inputs; `out`: of the output; shapes broadcast to `shape`.
  BoundElementwise(const Program& program, const std::vector<DType>& stored, DType out,
                   const std::vector<Shape>& shapes, const Shape& shape, Isa isa);

  int64_t tiles() const { return tiles_; }
  int64_t work() const { return work_; }  // whole output, in vector additions
  size_t scratch_bytes() const { return scratch_bytes_; }
  // Computes tiles [first, last).
  void run(const RunArgs& args, int64_t first, int64_t last, std::byte* scratch) const;

 private:
  struct TileState;

  void merge(const std::vector<Shape>& shapes, const Shape& shape);
  void cut(int64_t tile);
  void classify();
  void bind_instructions(const Program& program, Isa isa);
  void assign_slots();
  void load_input(int i, TileState& state) const;
  void expand(const BoundInput& input, const std::byte* src, int64_t rows, void* dst) const;

  Compute compute_;
  std::vector<BoundInput> inputs_;
  std::vector<Literal> literals_;
  std::vector<BoundInstruction> instructions_;
  std::vector<int> slots_;  // per value; -1: no register
  std::vector<bool> splat_;
  int result_;
  ConvertFn store_;  // null when the output is stored in the compute type
  size_t output_element_size_;

  int rank_ = 0;
  int64_t dims_[kMaxRank];
  int split_ = 0;
  int64_t inner_ = 1;  // elements of one row
  int64_t rows_ = 1;   // of dims_[split_] in one tile
  int64_t pieces_ = 1;
  int64_t tiles_ = 0;
  int64_t work_ = 0;
  size_t register_bytes_ = 0;
  size_t raw_offset_ = 0;
  size_t scratch_bytes_ = 0;
};

// The shape all broadcast to (ONNX multidirectional).
Status broadcast_shapes(const std::vector<Shape>& shapes, Shape* result);

}  // namespace lepton
