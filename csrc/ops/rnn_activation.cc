#include "ops/rnn_activation.h"

#include <cctype>
#include <string>

namespace lepton {
namespace {

// What a name stands for, and the constants it takes from activation_alpha and activation_beta.
struct Named {
  std::string_view name;  // lower case: names are matched without regard to case
  MicroOp op;
  bool alpha, beta;
  float default_alpha, default_beta;
};
constexpr Named kNamed[] = {
    {"sigmoid", MicroOp::kSigmoid, false, false, 0.f, 0.f},
    {"tanh", MicroOp::kTanh, false, false, 0.f, 0.f},
    {"relu", MicroOp::kRelu, false, false, 0.f, 0.f},
    {"softsign", MicroOp::kSoftsign, false, false, 0.f, 0.f},
    {"softplus", MicroOp::kSoftplus, false, false, 0.f, 0.f},
    {"leakyrelu", MicroOp::kLeakyRelu, true, false, 0.01f, 0.f},
    {"thresholdedrelu", MicroOp::kThresholdedRelu, true, false, 1.f, 0.f},
    {"elu", MicroOp::kElu, true, false, 1.f, 0.f},
    {"hardsigmoid", MicroOp::kHardSigmoid, true, true, 0.2f, 0.5f},
    {"affine", MicroOp::kIdentity, true, true, 1.f, 0.f},
    {"scaledtanh", MicroOp::kIdentity, true, true, 1.f, 1.f},
};

const Named* find_named(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const Named& named : kNamed)
    if (named.name == lower) return &named;
  return nullptr;
}

// The value at *next, or the default when the list has ended.
float take(Attrs::Floats list, size_t* next, float otherwise) {
  return *next < list.size ? list.data[(*next)++] : otherwise;
}

}  // namespace

void RnnActivation::apply(float* x, size_t n) const {
  for (int i = 0; i < count_; ++i) {
    const Stage& stage = stages_[i];
    stage.fn({n, {x, &stage.value[0], &stage.value[1]}, x, 6});
  }
}

RnnActivation RnnActivation::plain(MicroOp op, Isa isa) {
  RnnActivation function;
  function.add(op, isa, {});
  return function;
}

bool RnnActivation::operator==(const RnnActivation& other) const {
  if (count_ != other.count_) return false;
  for (int i = 0; i < count_; ++i) {
    const Stage &a = stages_[i], &b = other.stages_[i];
    if (a.fn != b.fn || a.value[0] != b.value[0] || a.value[1] != b.value[1]) return false;
  }
  return true;
}

void RnnActivation::add(MicroOp op, Isa isa, std::initializer_list<float> constants) {
  Stage& stage = stages_[count_++];
  stage.fn = find_micro(op, Compute::kF32, isa);
  for (const float value : constants) stage.value[stage.constants++] = value;
}

class RnnActivationReader {
 public:
  RnnActivationReader(const StepDesc& step, std::string_view list)
      : isa_(step.isa),
        rest_(list),
        alphas_(step.attrs->floats("activation_alpha")),
        betas_(step.attrs->floats("activation_beta")) {}

  bool at_end() const { return rest_.empty(); }

  Status next(RnnActivation* function) {
    const size_t end = rest_.find(';');
    const std::string_view name = rest_.substr(0, end);
    rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
    const Named* const named = find_named(name);
    if (named == nullptr) return unsupported("activation '" + std::string(name) + "'");
    const float alpha = named->alpha ? take(alphas_, &alpha_, named->default_alpha) : 0.f;
    const float beta = named->beta ? take(betas_, &beta_, named->default_beta) : 0.f;
    *function = {};
    if (named->name == "affine") {
      function->add(MicroOp::kMul, isa_, {alpha});
      function->add(MicroOp::kAdd, isa_, {beta});
    } else if (named->name == "scaledtanh") {
      function->add(MicroOp::kMul, isa_, {beta});
      function->add(MicroOp::kTanh, isa_, {});
      function->add(MicroOp::kMul, isa_, {alpha});
    } else if (named->beta) {
      function->add(named->op, isa_, {alpha, beta});
    } else if (named->alpha) {
      function->add(named->op, isa_, {alpha});
    } else {
      function->add(named->op, isa_, {});
    }
    return {};
  }

 private:
  Isa isa_;
  std::string_view rest_;
  Attrs::Floats alphas_, betas_;
  size_t alpha_ = 0, beta_ = 0;
};

Status read_rnn_activations(const StepDesc& step, std::string_view defaults, int count,
                            RnnActivation* functions) {
  const std::string_view given = step.attrs->s("activations");
  RnnActivationReader reader(step, given);
  for (int i = 0; i < count; ++i) {
    if (reader.at_end()) {
      if (!given.empty()) return invalid_model("too few activations");
      reader = RnnActivationReader(step, defaults);
    }
    LEPTON_RETURN_IF_ERROR(reader.next(&functions[i]));
  }
  if (!given.empty() && !reader.at_end()) return invalid_model("too many activations");
  return {};
}

RnnArithmetic::RnnArithmetic(Isa isa)
    : add_fn(find_micro(MicroOp::kAdd, Compute::kF32, isa)),
      sub_fn(find_micro(MicroOp::kSub, Compute::kF32, isa)),
      mul_fn(find_micro(MicroOp::kMul, Compute::kF32, isa)),
      clip_fn(find_micro(MicroOp::kClip, Compute::kF32, isa)) {}

}  // namespace lepton
