#include "ops/elementwise_bind.h"

#include <algorithm>
#include <cstring>

namespace lepton {
namespace {

// Registers stay in L1: a chain of eight instructions on 2 KiB tiles touches 16 KiB.
constexpr int64_t kTileBytes = 2048;
// Without registers only the call overhead counts.
constexpr int64_t kStreamingTileBytes = 16384;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Copies a block of elements of type T whose dims[d] move by strides[d]; returns the end of dst.
template <typename T>
T* expand_block(const T* src, T* dst, const int64_t* dims, const int64_t* strides, int rank) {
  if (rank == 1) {
    const int64_t n = dims[0];
    if (strides[0] == 0) {
      for (int64_t i = 0; i < n; ++i) dst[i] = *src;
    } else {
      std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(T));
    }
    return dst + n;
  }
  for (int64_t i = 0; i < dims[0]; ++i)
    dst = expand_block(src + i * strides[0], dst, dims + 1, strides + 1, rank - 1);
  return dst;
}

}  // namespace

Status broadcast_shapes(const std::vector<Shape>& shapes, Shape* result) {
  *result = Shape();
  for (const Shape& s : shapes) result->rank = std::max(result->rank, s.rank);
  for (int d = 0; d < result->rank; ++d) result->dims[d] = 1;
  for (const Shape& s : shapes) {
    for (int i = 0; i < s.rank; ++i) {
      int64_t& dim = result->dims[result->rank - s.rank + i];
      if (s[i] == dim || s[i] == 1) continue;
      if (dim != 1) {
        std::string text;
        for (const Shape& t : shapes) text += " " + t.str();
        return invalid_input("shapes do not broadcast:" + text);
      }
      dim = s[i];
    }
  }
  if (!is_valid(*result)) return invalid_input("result shape " + result->str() + " is too large");
  return {};
}

BoundElementwise::BoundElementwise(const Program& program, const std::vector<DType>& stored,
                                   DType out, const std::vector<Shape>& shapes, const Shape& shape,
                                   Isa isa)
    : compute_(program.compute), literals_(program.literals), result_(program.result) {
  constexpr DType kStoredAs[] = {DType::kF32, DType::kF64, DType::kS64, DType::kU64};
  const DType native = kStoredAs[static_cast<int>(compute_)];
  bool streaming = program.instructions.size() == 1 && out == native;
  for (DType t : stored) {
    BoundInput input{};
    input.element_size = lepton::size_of(t);
    input.load = t == native ? nullptr : find_load(compute_, t, isa);
    inputs_.push_back(input);
    streaming = streaming && t == native;
  }
  store_ = out == native ? nullptr : find_store(compute_, out, isa);
  output_element_size_ = lepton::size_of(out);

  merge(shapes, shape);
  const int64_t size = static_cast<int64_t>(size_of(compute_));
  cut((streaming && rank_ == 1 ? kStreamingTileBytes : kTileBytes) / size);
  classify();
  bind_instructions(program, isa);
  register_bytes_ = round_up(static_cast<size_t>(rows_ * inner_ * size), kCacheLine);
  assign_slots();
  work_ = shape.elements() * std::max<int64_t>(program.cost, 1);
}

// Drops dimensions of size 1 and merges neighbours that every input crosses with one stride.
void BoundElementwise::merge(const std::vector<Shape>& shapes, const Shape& shape) {
  for (int d = shape.rank - 1; d >= 0; --d) {
    if (shape[d] == 1) continue;
    bool mergeable = rank_ > 0;
    int64_t strides[kMaxProgramInputs];
    for (size_t i = 0; i < shapes.size(); ++i) {
      const Shape& s = shapes[i];
      const int own = d - (shape.rank - s.rank);
      strides[i] = own < 0 || s[own] == 1 ? 0 : s.product(own + 1, s.rank);
      if (rank_ > 0)
        mergeable = mergeable && strides[i] == inputs_[i].strides[rank_ - 1] * dims_[rank_ - 1];
    }
    if (mergeable) {
      dims_[rank_ - 1] *= shape[d];
      continue;
    }
    dims_[rank_] = shape[d];  // innermost first, until reversed below
    for (size_t i = 0; i < shapes.size(); ++i) inputs_[i].strides[rank_] = strides[i];
    ++rank_;
  }
  if (rank_ == 0) {
    rank_ = 1;
    dims_[0] = 1;
  }
  std::reverse(dims_, dims_ + rank_);
  for (BoundInput& input : inputs_) std::reverse(input.strides, input.strides + rank_);
}

void BoundElementwise::cut(int64_t tile) {
  split_ = rank_ - 1;
  while (split_ > 0 && inner_ * dims_[split_] <= tile) inner_ *= dims_[split_--];
  const int64_t most = std::max<int64_t>(tile / std::max<int64_t>(inner_, 1), 1);
  rows_ = std::max<int64_t>(std::min(dims_[split_], most), 1);
  pieces_ = ceil_div(dims_[split_], rows_);
  tiles_ = pieces_;
  for (int d = 0; d < split_; ++d) tiles_ *= dims_[d];
  if (inner_ == 0) tiles_ = 0;
}

void BoundElementwise::classify() {
  for (BoundInput& input : inputs_) {
    bool contiguous = true, splat = true;
    int64_t natural = 1;
    for (int d = rank_ - 1; d >= split_; --d) {
      contiguous = contiguous && input.strides[d] == natural;
      splat = splat && input.strides[d] == 0;
      natural *= dims_[d];
    }
    input.mode = splat        ? BoundInput::kSplat
                 : contiguous ? BoundInput::kContiguous
                              : BoundInput::kExpand;
  }
}

void BoundElementwise::bind_instructions(const Program& program, Isa isa) {
  splat_.assign(static_cast<size_t>(program.num_values()), true);
  for (size_t i = 0; i < inputs_.size(); ++i) splat_[i] = inputs_[i].mode == BoundInput::kSplat;
  for (const Instruction& instruction : program.instructions) {
    BoundInstruction bound{};
    bound.fn = instruction.fn;
    bound.num_operands = instruction.num_operands;
    bound.result = instruction.result;
    for (int j = 0; j < bound.num_operands; ++j) {
      bound.operand[j] = instruction.operand[j];
      if (splat_[instruction.operand[j]]) bound.splat |= 1u << j;
    }
    bound.once = bound.splat == (1u << bound.num_operands) - 1 && bound.result != result_;
    splat_[bound.result] = bound.once;
    instructions_.push_back(bound);
  }
  // The result must fill its tile and must not be an input's own memory.
  const bool is_input = result_ < program.num_inputs;
  const bool in_place = is_input && inputs_[result_].mode == BoundInput::kContiguous &&
                        inputs_[result_].load == nullptr && store_ == nullptr;
  if (!splat_[result_] && !in_place) return;
  BoundInstruction copy{};
  copy.fn = find_micro(MicroOp::kIdentity, compute_, isa);
  copy.num_operands = 1;
  copy.operand[0] = result_;
  copy.splat = splat_[result_] ? 1 : 0;
  copy.result = result_ = static_cast<int>(splat_.size());
  splat_.push_back(false);
  instructions_.push_back(copy);
}

// Inputs that need a register keep it for the whole run; instruction results share registers as
// they die. The result needs none when it is computed straight into the output.
void BoundElementwise::assign_slots() {
  slots_.assign(splat_.size(), -1);
  int count = 0;
  bool raw = false;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const bool direct = inputs_[i].load == nullptr && inputs_[i].mode != BoundInput::kExpand;
    const bool to_output = static_cast<int>(i) == result_ && store_ == nullptr;
    if (!direct && !to_output) slots_[i] = count++;
    raw = raw || (inputs_[i].mode == BoundInput::kExpand && inputs_[i].load != nullptr);
  }
  std::vector<int> last_use(splat_.size(), -1);
  for (size_t k = 0; k < instructions_.size(); ++k)
    for (int j = 0; j < instructions_[k].num_operands; ++j)
      last_use[instructions_[k].operand[j]] = static_cast<int>(k);
  const int first_result = static_cast<int>(inputs_.size() + literals_.size());
  std::vector<int> free;
  for (size_t k = 0; k < instructions_.size(); ++k) {
    const BoundInstruction& instruction = instructions_[k];
    for (int j = 0; j < instruction.num_operands; ++j) {
      const int v = instruction.operand[j];
      const bool again =
          std::find(instruction.operand, instruction.operand + j, v) != instruction.operand + j;
      // A splat is overwritten by a whole tile only after every lane has been read.
      const bool dies = v >= first_result && last_use[v] == static_cast<int>(k) && !again;
      if (dies && (!splat_[v] || instruction.once)) free.push_back(slots_[v]);
    }
    if (instruction.result == result_ && store_ == nullptr) continue;
    if (free.empty()) {
      slots_[instruction.result] = count++;
    } else {
      slots_[instruction.result] = free.back();
      free.pop_back();
    }
  }
  raw_offset_ = static_cast<size_t>(count) * register_bytes_;
  scratch_bytes_ = raw_offset_ + (raw ? 2 * register_bytes_ : 0);
}

struct BoundElementwise::TileState {
  const RunArgs* args;
  std::byte* scratch;
  int64_t outer;  // index of the block before dims_[split_]
  int64_t first_row;
  int64_t rows;
  void* output;
  const void* value[kMaxValues + 1];
  int64_t cached_offset[kMaxProgramInputs];
  int64_t cached_rows[kMaxProgramInputs];
};

void BoundElementwise::expand(const BoundInput& input, const std::byte* src, int64_t rows,
                              void* dst) const {
  int64_t dims[kMaxRank];
  const int rank = rank_ - split_;
  for (int d = 0; d < rank; ++d) dims[d] = dims_[split_ + d];
  dims[0] = rows;
  const int64_t* strides = input.strides + split_;
  const auto copy = [&](auto type) {
    using T = decltype(type);
    expand_block(reinterpret_cast<const T*>(src), static_cast<T*>(dst), dims, strides, rank);
  };
  switch (input.element_size) {
    case 1: return copy(uint8_t{});
    case 2: return copy(uint16_t{});
    case 4: return copy(uint32_t{});
    default: return copy(uint64_t{});
  }
}

void BoundElementwise::load_input(int i, TileState& state) const {
  const BoundInput& input = inputs_[static_cast<size_t>(i)];
  int64_t offset = state.first_row * input.strides[split_];
  int64_t outer = state.outer;
  for (int d = split_ - 1; d >= 0 && outer != 0; --d) {
    offset += outer % dims_[d] * input.strides[d];
    outer /= dims_[d];
  }
  const std::byte* src =
      state.args->input<std::byte>(i) + static_cast<size_t>(offset) * input.element_size;
  if (input.mode != BoundInput::kExpand && input.load == nullptr) {
    state.value[i] = src;
    return;
  }
  const int slot = slots_[static_cast<size_t>(i)];
  void* dst = slot < 0 ? state.output : state.scratch + static_cast<size_t>(slot) * register_bytes_;
  state.value[i] = dst;
  if (input.mode == BoundInput::kContiguous) {
    input.load(src, dst, static_cast<size_t>(state.rows * inner_));
    return;
  }
  // Fewer rows of the same block are a prefix of what the register holds.
  if (slot >= 0 && state.cached_offset[i] == offset && state.cached_rows[i] >= state.rows) return;
  state.cached_offset[i] = offset;
  state.cached_rows[i] = state.rows;
  if (input.mode == BoundInput::kSplat) {
    input.load(src, dst, 1);
  } else if (input.load == nullptr) {
    expand(input, src, state.rows, dst);
  } else {
    void* raw = state.scratch + raw_offset_;
    expand(input, src, state.rows, raw);
    input.load(raw, dst, static_cast<size_t>(state.rows * inner_));
  }
}

void BoundElementwise::run(const RunArgs& args, int64_t first, int64_t last,
                           std::byte* scratch) const {
  TileState state;
  state.args = &args;
  state.scratch = scratch;
  const int num_inputs = static_cast<int>(inputs_.size());
  for (int i = 0; i < num_inputs; ++i) state.cached_offset[i] = -1;
  for (size_t i = 0; i < literals_.size(); ++i) state.value[num_inputs + i] = &literals_[i];

  for (int64_t t = first; t < last; ++t) {
    state.outer = pieces_ == 1 ? t : t / pieces_;
    state.first_row = (t - state.outer * pieces_) * rows_;
    state.rows = std::min(rows_, dims_[split_] - state.first_row);
    const size_t n = static_cast<size_t>(state.rows * inner_);
    const int64_t position = (state.outer * dims_[split_] + state.first_row) * inner_;
    state.output = args.output<std::byte>(0) + static_cast<size_t>(position) * output_element_size_;

    for (int i = 0; i < num_inputs; ++i) load_input(i, state);
    for (const BoundInstruction& instruction : instructions_) {
      MicroArgs x;
      x.n = instruction.once ? 1 : n;
      x.splat = instruction.splat;
      for (int j = 0; j < instruction.num_operands; ++j)
        x.in[j] = state.value[instruction.operand[j]];
      const int slot = slots_[static_cast<size_t>(instruction.result)];
      x.out = slot < 0 ? state.output : scratch + static_cast<size_t>(slot) * register_bytes_;
      state.value[instruction.result] = x.out;
      instruction.fn(x);
    }
    if (store_ != nullptr) store_(state.value[result_], state.output, n);
  }
}

}  // namespace lepton
