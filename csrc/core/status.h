// Status: how everything below the bindings reports failure. Nothing there throws.
#pragma once

#include <memory>
#include <string>
#include <utility>

namespace lepton {

enum class Code {
  kOk,
  kInvalidModel,  // the model or plan itself is wrong
  kInvalidInput,  // what the caller passed to run() does not fit
  kUnsupported,   // valid, but no kernel for it here
  kOutOfMemory,
  kInterrupted,
  kInternal,
};

// One pointer wide; null means ok, so the success path costs a register test.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message)
      : detail_(std::make_unique<Detail>(Detail{code, std::move(message)})) {}

  bool ok() const { return detail_ == nullptr; }
  Code code() const { return detail_ ? detail_->code : Code::kOk; }
  const std::string& message() const {
    static const std::string empty;
    return detail_ ? detail_->message : empty;
  }

 private:
  struct Detail {
    Code code;
    std::string message;
  };
  std::unique_ptr<Detail> detail_;
};

inline Status invalid_model(std::string m) { return {Code::kInvalidModel, std::move(m)}; }
inline Status invalid_input(std::string m) { return {Code::kInvalidInput, std::move(m)}; }
inline Status unsupported(std::string m) { return {Code::kUnsupported, std::move(m)}; }
inline Status internal_error(std::string m) { return {Code::kInternal, std::move(m)}; }

}  // namespace lepton

#define LEPTON_RETURN_IF_ERROR(expr)                 \
  do {                                               \
    ::lepton::Status lepton_status_ = (expr);        \
    if (!lepton_status_.ok()) return lepton_status_; \
  } while (0)
