// Operators from shared libraries (custom_op_api.h), by the name a plan gives them:
// "domain.Operator".
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/custom_op_api.h"
#include "ops/op.h"

namespace lepton {

// Loads a library for the rest of the process and registers its operators; one of the same name
// replaces an earlier one. names: domain and name of each.
Status load_op_library(const std::string& path,
                       std::vector<std::pair<std::string, std::string>>* names);

// Null when no library has this operator.
const lepton_op* find_custom_op(std::string_view key);

Status make_custom_op(const lepton_op& entry, const StepDesc& desc, std::unique_ptr<Op>* op);

// Attributes in the form the interface has them.
class CustomAttributes {
 public:
  CustomAttributes() = default;
  explicit CustomAttributes(const Attrs& attrs);
  void add(const Attrs::Entry& entry);
  std::vector<lepton_op_attribute> list() const;

 private:
  struct Stored {
    std::string name;
    Attrs::Entry::Kind kind;
    uint32_t count;
    std::vector<int64_t> words;  // the contents, aligned, with a zero after them
  };
  std::vector<Stored> stored_;
};

// Asks for the outputs' types; dims may be -1.
Status infer_custom_op(const lepton_op& entry, const std::vector<lepton_op_tensor>& inputs,
                       const std::vector<lepton_op_attribute>& attributes,
                       std::vector<lepton_op_tensor>* outputs);

}  // namespace lepton
