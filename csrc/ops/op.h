// The seam between the runtime and the operator families.
//
// A family is a factory (make_*) in its driver file, listed in ops.inc. The factory reads one plan
// step: attributes, dtypes, and constants already packed by the family's own packer. It rejects
// what it cannot run with Code::kUnsupported and a reason; `lower` then makes a host step of it.
// The Op it makes is immutable and shared by all runs. For concrete input shapes the runtime calls
// bind(), the shape rule: it sets output shapes, asks for scratch, and leaves a closure that run()
// calls. Nothing in a closure allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/shape.h"
#include "core/status.h"
#include "core/thread_pool.h"

namespace lepton {

// Named attributes of one step: lists of int64, lists of float, or a string. Absent ones take the
// default given at the point of use. Strings and arrays live in the plan's buffer.
class Attrs {
 public:
  struct Entry {
    std::string_view name;
    enum Kind : uint8_t { kInts = 0, kFloats = 1, kString = 2 } kind;
    uint32_t count;    // elements, or bytes of the string
    const void* data;  // int64_t[], float[] (aligned) or char[]
  };
  void add(Entry e) { entries_.push_back(e); }

  std::vector<Entry>::const_iterator begin() const { return entries_.begin(); }
  std::vector<Entry>::const_iterator end() const { return entries_.end(); }

  bool has(std::string_view name) const { return find(name) != nullptr; }
  int64_t i(std::string_view name, int64_t otherwise = 0) const;
  float f(std::string_view name, float otherwise = 0.f) const;
  std::string_view s(std::string_view name, std::string_view otherwise = {}) const;
  // Pointer and count of a list; {nullptr, 0} when absent.
  struct Ints {
    const int64_t* data;
    size_t size;
  };
  struct Floats {
    const float* data;
    size_t size;
  };
  Ints ints(std::string_view name) const;
  Floats floats(std::string_view name) const;
  // Those whose names begin with `prefix`, without it.
  Attrs group(std::string_view prefix) const;

 private:
  const Entry* find(std::string_view name) const;
  std::vector<Entry> entries_;
};

// A tensor as the factory or bind sees it.
struct TensorInfo {
  DType dtype = DType::kUndefined;
  Shape shape;                 // meaningful at bind; in the factory only for constants
  const void* data = nullptr;  // its contents when known then: constants, and small values that
                               // derive from shapes; otherwise null
  bool present = false;        // false for an omitted optional input
  bool constant = false;       // data comes from the plan itself
};

// What a factory reads.
struct StepDesc {
  std::string_view op;      // "Conv", "lepton.QLinearConv": domain prefix unless the main domain
  std::string_view name;    // for error messages
  std::string_view kernel;  // chosen by `lower` for families with a kernel list; else empty
  const Attrs* attrs = nullptr;
  std::vector<TensorInfo> inputs;
  std::vector<DType> outputs;  // dtypes; kUndefined for an omitted optional output
  Isa isa = Isa::k_scalar;     // the cap this plan was made for; helpers without a list obey it too

  bool has_input(size_t i) const { return i < inputs.size() && inputs[i].present; }
};

// What will be read soon. Only its addresses are used, to bring it closer; or null.
struct Ahead {
  const std::byte* at = nullptr;
  size_t bytes = 0;
};

// A constant that is no mere vector; otherwise nothing.
Ahead weights_of(const TensorInfo& input);

// What a closure gets. Pointers of omitted operands are null.
struct RunArgs {
  const void* const* in;
  void* const* out;
  std::byte* scratch;  // 64-byte aligned, as large as bind asked for
  Parallel parallel;
  Ahead ahead = {};  // the first weights that a later step reads

  template <typename T>
  const T* input(int i) const {
    return static_cast<const T*>(in[i]);
  }
  template <typename T>
  T* output(int i) const {
    return static_cast<T*>(out[i]);
  }
};
using RunFn = std::function<Status(const RunArgs&)>;

// A closure whose output shapes depend on data: it sees its inputs and allocates its outputs.
class DynamicArgs {
 public:
  virtual ~DynamicArgs() = default;
  virtual const TensorInfo& input(int i) const = 0;
  // Memory for output i, valid until the run ends; null when out of memory or the shape is invalid.
  virtual void* allocate(int i, DType dtype, const Shape& shape) = 0;
  virtual Parallel parallel() const = 0;
  // Whether the run should stop; cheap to ask often.
  virtual bool interrupted() = 0;
};
using DynamicFn = std::function<Status(DynamicArgs&)>;

// What bind() reads and fills.
class BindContext {
 public:
  virtual ~BindContext() = default;

  virtual int num_inputs() const = 0;
  virtual const TensorInfo& input(int i) const = 0;
  virtual int num_outputs() const = 0;
  virtual DType output_dtype(int i) const = 0;
  virtual int threads() const = 0;  // Parallel::threads() of the runs to come

  // Makes the contents of input i available. True: input(i).data is set. False: the tensor is
  // computed at run time; return needs_value() at once, and bind() is called again when it is
  // known.
  virtual bool require_value(int i) = 0;
  static Status needs_value() { return {Code::kInternal, "value needed at bind"}; }

  // Exactly one of these for each output that is present.
  virtual Status set_output(int i, const Shape& shape) = 0;
  // Output i is input j's memory under another shape (same byte count); no closure needed for it.
  virtual Status set_alias(int i, int j, const Shape& shape) = 0;
  // Output i is known now: a copy of `bytes` bytes of data (small integer tensors).
  virtual Status set_known(int i, const Shape& shape, const void* data, size_t bytes) = 0;

  // Output i may overwrite input j element by element, if the runtime finds j dead after this step
  // and no other operand in the same memory.
  virtual void allow_in_place(int i, int j) = 0;
  virtual void set_scratch(size_t bytes) = 0;
  virtual void set_run(RunFn fn) = 0;
  // For data-dependent output shapes; set_output is then not called.
  virtual void set_dynamic_run(DynamicFn fn) = 0;
};

class Op {
 public:
  virtual ~Op() = default;
  virtual Status bind(BindContext& context) const = 0;
};

using OpFactory = Status (*)(const StepDesc&, std::unique_ptr<Op>*);

// Null when no family has this name. "A+B": row_blocks.cc, conv_bands.cc.
OpFactory find_op(std::string_view name);

// Bytes rounded up to whole cache lines, as scratch partitions want them.
constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
constexpr size_t kCacheLine = 64;

// Scratch of one thread of several, whole pages: within a page processors fetch lines ahead, also
// those that another thread is writing.
constexpr size_t thread_share(size_t bytes) { return round_up(bytes, 4096); }

}  // namespace lepton
