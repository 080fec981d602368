#include "ops/op.h"

namespace lepton {

#define LEPTON_OP(name, factory) Status factory(const StepDesc&, std::unique_ptr<Op>*);
#include "ops/ops.inc"
#undef LEPTON_OP

namespace {

struct NamedFactory {
  std::string_view name;
  OpFactory factory;
};

const NamedFactory kFactories[] = {
#define LEPTON_OP(name, factory) {name, factory},
#include "ops/ops.inc"
#undef LEPTON_OP
    {{}, nullptr},
};

}  // namespace

Status make_row_blocks(const StepDesc&, std::unique_ptr<Op>*);  // row_blocks.cc
Status make_conv_bands(const StepDesc&, std::unique_ptr<Op>*);  // conv_bands.cc

OpFactory find_op(std::string_view name) {
  const size_t end = name.find('+');
  if (end != std::string_view::npos) {
    const std::string_view first = name.substr(0, end);
    const bool convolves = first == "lepton.Conv" || first == "lepton.QLinearConv";
    return convolves ? make_conv_bands : make_row_blocks;
  }
  for (const NamedFactory& f : kFactories)
    if (f.factory != nullptr && f.name == name) return f.factory;
  return nullptr;
}

Ahead weights_of(const TensorInfo& input) {
  constexpr size_t kVector = 4096;  // bytes
  if (!input.constant) return {};
  const size_t bytes = static_cast<size_t>(input.shape.elements()) * size_of(input.dtype);
  return bytes > kVector ? Ahead{static_cast<const std::byte*>(input.data), bytes} : Ahead{};
}

const Attrs::Entry* Attrs::find(std::string_view name) const {
  for (const Entry& e : entries_)
    if (e.name == name) return &e;
  return nullptr;
}

Attrs Attrs::group(std::string_view prefix) const {
  Attrs found;
  for (Entry e : entries_) {
    if (e.name.substr(0, prefix.size()) != prefix) continue;
    e.name.remove_prefix(prefix.size());
    found.add(e);
  }
  return found;
}

int64_t Attrs::i(std::string_view name, int64_t otherwise) const {
  const Ints list = ints(name);
  return list.size == 1 ? list.data[0] : otherwise;
}

float Attrs::f(std::string_view name, float otherwise) const {
  const Floats list = floats(name);
  return list.size == 1 ? list.data[0] : otherwise;
}

std::string_view Attrs::s(std::string_view name, std::string_view otherwise) const {
  const Entry* e = find(name);
  if (e == nullptr || e->kind != Entry::kString) return otherwise;
  return {static_cast<const char*>(e->data), e->count};
}

Attrs::Ints Attrs::ints(std::string_view name) const {
  const Entry* e = find(name);
  if (e == nullptr || e->kind != Entry::kInts) return {nullptr, 0};
  return {static_cast<const int64_t*>(e->data), e->count};
}

Attrs::Floats Attrs::floats(std::string_view name) const {
  const Entry* e = find(name);
  if (e == nullptr || e->kind != Entry::kFloats) return {nullptr, 0};
  return {static_cast<const float*>(e->data), e->count};
}

}  // namespace lepton
