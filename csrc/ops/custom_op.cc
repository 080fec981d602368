#include "ops/custom_op.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

namespace lepton {
namespace {

static_assert(LEPTON_OP_MAX_RANK == kMaxRank, "custom_op_api.h repeats it");

std::mutex mutex;

std::map<std::string, const lepton_op*, std::less<>>& registry() {
  static std::map<std::string, const lepton_op*, std::less<>> table;
  return table;
}

Status check_entry(const lepton_op& entry) {
  if (entry.domain == nullptr || entry.name == nullptr || entry.name[0] == '\0' ||
      entry.infer == nullptr || entry.run == nullptr)
    return invalid_input("an operator of the library lacks its domain, name, infer or run");
  const std::string_view domain = entry.domain;
  if (domain.empty() || domain == "ai.onnx" || domain == "lepton")
    return invalid_input("operators of domain \"" + std::string(domain) +
                         "\" cannot be registered");
  return {};
}

Status failed(const lepton_op& entry, const char* doing, const char* error) {
  const size_t length = strnlen(error, LEPTON_OP_ERROR_BYTES);
  return invalid_input(std::string(doing) + " of the custom operator " + entry.domain + "." +
                       entry.name + " failed" +
                       (length == 0 ? "" : ": " + std::string(error, length)));
}

lepton_op_tensor tensor_of(const TensorInfo& t) {
  lepton_op_tensor made{};
  if (!t.present) return made;
  made.dtype = static_cast<int32_t>(t.dtype);
  made.rank = t.shape.rank;
  std::copy(t.shape.begin(), t.shape.end(), made.dims);
  return made;
}

struct IndexedBody {
  void (*body)(void*, int64_t);
  void* context;
};

void parallel_for(const lepton_op_call* call, int64_t count, void (*body)(void*, int64_t),
                  void* context) {
  const IndexedBody indexed{body, context};
  static_cast<const Parallel*>(call->host)->loop(count, [&indexed](int64_t i, int) {
    indexed.body(indexed.context, i);
  });
}

// One step for bound shapes. Belongs to a context, which serves one run at a time.
struct BoundCustomOp {
  const lepton_op& entry;
  std::vector<lepton_op_tensor> inputs, outputs;
  std::vector<lepton_op_attribute> attributes;

  Status run(const RunArgs& args) {
    for (size_t i = 0; i < inputs.size(); ++i) inputs[i].data = const_cast<void*>(args.in[i]);
    for (size_t i = 0; i < outputs.size(); ++i) outputs[i].data = args.out[i];
    char error[LEPTON_OP_ERROR_BYTES] = {};
    const lepton_op_call call{inputs.data(),
                              outputs.data(),
                              attributes.data(),
                              static_cast<int32_t>(inputs.size()),
                              static_cast<int32_t>(outputs.size()),
                              static_cast<int32_t>(attributes.size()),
                              parallel_for,
                              &args.parallel,
                              error};
    return entry.run(&call) == 0 ? Status() : failed(entry, "run", error);
  }
};

class CustomOp final : public Op {
 public:
  CustomOp(const lepton_op& entry, const StepDesc& desc)
      : entry_(entry), num_outputs_(desc.outputs.size()), attributes_(*desc.attrs) {}

  Status bind(BindContext& context) const override {
    auto bound = std::make_shared<BoundCustomOp>(BoundCustomOp{entry_, {}, {}, {}});
    bound->attributes = attributes_.list();
    for (int i = 0; i < context.num_inputs(); ++i)
      bound->inputs.push_back(tensor_of(context.input(i)));
    bound->outputs.resize(num_outputs_);
    LEPTON_RETURN_IF_ERROR(
        infer_custom_op(entry_, bound->inputs, bound->attributes, &bound->outputs));
    for (size_t i = 0; i < num_outputs_; ++i) {
      lepton_op_tensor& made = bound->outputs[i];
      const DType dtype = context.output_dtype(static_cast<int>(i));
      if (dtype == DType::kUndefined) {
        made = {};
        continue;
      }
      if (made.dtype != static_cast<int32_t>(dtype))
        return invalid_model("infer gives output " + std::to_string(i) + " another dtype than " +
                             name_of(dtype));
      LEPTON_RETURN_IF_ERROR(
          context.set_output(static_cast<int>(i), Shape::of(made.dims, made.rank)));
    }
    context.set_run([bound](const RunArgs& args) { return bound->run(args); });
    return {};
  }

 private:
  const lepton_op& entry_;
  size_t num_outputs_;
  CustomAttributes attributes_;
};

}  // namespace

CustomAttributes::CustomAttributes(const Attrs& attrs) {
  for (const Attrs::Entry& entry : attrs) add(entry);
}

void CustomAttributes::add(const Attrs::Entry& entry) {
  const size_t width = entry.kind == Attrs::Entry::kInts     ? 8
                       : entry.kind == Attrs::Entry::kFloats ? 4
                                                             : 1;
  Stored stored{std::string(entry.name), entry.kind, entry.count, {}};
  stored.words.resize(entry.count * width / 8 + 1);
  if (entry.count != 0) std::memcpy(stored.words.data(), entry.data, entry.count * width);
  stored_.push_back(std::move(stored));
}

std::vector<lepton_op_attribute> CustomAttributes::list() const {
  std::vector<lepton_op_attribute> made;
  for (const Stored& s : stored_)
    made.push_back({s.name.c_str(), static_cast<int32_t>(s.kind), s.count, s.words.data()});
  return made;
}

Status load_op_library(const std::string& path,
                       std::vector<std::pair<std::string, std::string>>* names) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return invalid_input(std::string("cannot be loaded: ") + dlerror());
  void* symbol = dlsym(handle, "lepton_ops");
  if (symbol == nullptr) return invalid_input(path + " exports no function lepton_ops");
  const lepton_op_library* library = reinterpret_cast<decltype(&lepton_ops)>(symbol)();
  if (library == nullptr || library->abi != LEPTON_OP_ABI)
    return unsupported(path + " was built for another version of the operator interface");
  for (uint32_t i = 0; i < library->num_ops; ++i)
    LEPTON_RETURN_IF_ERROR(check_entry(library->ops[i]));
  const std::lock_guard<std::mutex> lock(mutex);
  for (uint32_t i = 0; i < library->num_ops; ++i) {
    const lepton_op& entry = library->ops[i];
    registry()[std::string(entry.domain) + "." + entry.name] = &entry;
    names->emplace_back(entry.domain, entry.name);
  }
  return {};
}

const lepton_op* find_custom_op(std::string_view key) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = registry().find(key);
  return found == registry().end() ? nullptr : found->second;
}

Status make_custom_op(const lepton_op& entry, const StepDesc& desc, std::unique_ptr<Op>* op) {
  *op = std::make_unique<CustomOp>(entry, desc);
  return {};
}

Status infer_custom_op(const lepton_op& entry, const std::vector<lepton_op_tensor>& inputs,
                       const std::vector<lepton_op_attribute>& attributes,
                       std::vector<lepton_op_tensor>* outputs) {
  char error[LEPTON_OP_ERROR_BYTES] = {};
  const lepton_op_call call{inputs.data(),
                            outputs->data(),
                            attributes.data(),
                            static_cast<int32_t>(inputs.size()),
                            static_cast<int32_t>(outputs->size()),
                            static_cast<int32_t>(attributes.size()),
                            nullptr,
                            nullptr,
                            error};
  if (entry.infer(&call) != 0) return failed(entry, "infer", error);
  for (const lepton_op_tensor& made : *outputs)
    if (made.rank < 0 || made.rank > kMaxRank || size_of(static_cast<DType>(made.dtype)) == 0)
      return failed(entry, "infer", "an output has no dtype, or an impossible rank");
  return {};
}

}  // namespace lepton
