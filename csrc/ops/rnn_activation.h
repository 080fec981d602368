// Activation functions of recurrent layers, over the elementwise kernels.
#pragma once

#include <cstddef>
#include <string_view>

#include "core/isa.h"
#include "ops/elementwise.h"
#include "ops/op.h"

namespace lepton {

// One function with its constants: a chain of micro-ops applied in place.
class RnnActivation {
 public:
  // A micro-op without constants.
  static RnnActivation plain(MicroOp op, Isa isa);
  void apply(float* x, size_t n) const;
  bool operator==(const RnnActivation& other) const;
  bool operator!=(const RnnActivation& other) const { return !(*this == other); }

 private:
  friend class RnnActivationReader;
  struct Stage {
    MicroFn fn;
    int constants;
    float value[2];
  };
  void add(MicroOp op, Isa isa, std::initializer_list<float> constants);

  Stage stages_[3] = {};
  int count_ = 0;
};

// Reads `count` functions in order from the attributes activations (joined with ';', `defaults`
// repeated where absent), activation_alpha and activation_beta, whose values go in order to the
// functions that have such a constant.
Status read_rnn_activations(const StepDesc& step, std::string_view defaults, int count,
                            RnnActivation* functions);

// y = op(a, b) over n floats; y may be a or b.
struct RnnArithmetic {
  MicroFn add_fn, sub_fn, mul_fn, clip_fn;
  explicit RnnArithmetic(Isa isa);
  RnnArithmetic() = default;

  void add(const float* a, const float* b, float* y, size_t n) const { run(add_fn, a, b, y, n); }
  void sub(const float* a, const float* b, float* y, size_t n) const { run(sub_fn, a, b, y, n); }
  void mul(const float* a, const float* b, float* y, size_t n) const { run(mul_fn, a, b, y, n); }
  // y = a − y
  void subtract_from(float a, float* y, size_t n) const { sub_fn({n, {&a, y}, y, 1}); }
  void clip(float bound, float* y, size_t n) const {
    const float low = -bound;
    clip_fn({n, {y, &low, &bound}, y, 6});
  }

 private:
  static void run(MicroFn fn, const float* a, const float* b, float* y, size_t n) {
    fn({n, {a, b}, y, 0});
  }
};

}  // namespace lepton
