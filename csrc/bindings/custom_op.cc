// Libraries of custom operators: loading them, and asking for types at compile time.
#include "ops/custom_op.h"

#include <pybind11/stl.h>

#include <optional>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace lepton {
namespace {

using Type = std::pair<int, std::vector<int64_t>>;                    // dtype, dims
using Attribute = std::tuple<std::string, int, uint32_t, py::bytes>;  // as plans encode them

std::vector<std::pair<std::string, std::string>> load(const std::string& path) {
  std::vector<std::pair<std::string, std::string>> names;
  raise_if_error(load_op_library(path, &names));
  return names;
}

std::vector<Type> infer(const std::string& key, const std::vector<std::optional<Type>>& inputs,
                        const std::vector<Attribute>& attributes, size_t num_outputs) {
  const lepton_op* entry = find_custom_op(key);
  if (entry == nullptr) raise_if_error(invalid_input("there is no operator " + key));
  std::vector<lepton_op_tensor> types;
  for (const auto& input : inputs) {
    lepton_op_tensor t{};
    if (input) {
      if (input->second.size() > static_cast<size_t>(kMaxRank))
        raise_if_error(unsupported("an operand of rank above 8"));
      t.dtype = input->first;
      t.rank = static_cast<int32_t>(input->second.size());
      std::copy(input->second.begin(), input->second.end(), t.dims);
    }
    types.push_back(t);
  }
  CustomAttributes given;
  for (const auto& [name, kind, count, payload] : attributes) {
    const std::string_view bytes = payload;
    given.add({name, static_cast<Attrs::Entry::Kind>(kind), count, bytes.data()});
  }
  std::vector<lepton_op_tensor> outputs(num_outputs);
  raise_if_error(infer_custom_op(*entry, types, given.list(), &outputs));
  std::vector<Type> found;
  for (const lepton_op_tensor& t : outputs)
    found.emplace_back(t.dtype, std::vector<int64_t>(t.dims, t.dims + t.rank));
  return found;
}

}  // namespace

void register_custom_op(py::module_& m) {
  m.def("load_op_library", &load, py::arg("path"),
        "Loads a library of custom operators; returns domain and name of each.");
  m.def("infer_custom_op", &infer, py::arg("key"), py::arg("inputs"), py::arg("attributes"),
        py::arg("num_outputs"), "Types of the outputs of a library's operator.");
}

}  // namespace lepton
