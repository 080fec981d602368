#include "runtime/plan.h"

#include <cstring>
#include <functional>
#include <type_traits>

namespace lepton {
namespace {

// Sequential reader that never passes the end; ok() stays false after the first failure.
class Reader {
 public:
  Reader(const std::byte* data, size_t size) : data_(data), size_(size) {}

  template <typename T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    if (const std::byte* p = take(sizeof(T))) std::memcpy(&value, p, sizeof(T));
    return value;
  }
  std::string_view string() {
    const auto n = get<uint32_t>();
    const std::byte* p = take(n);
    return p ? std::string_view(reinterpret_cast<const char*>(p), n) : std::string_view();
  }
  // A count of things that each take at least `each` bytes: bounded by what is left.
  uint32_t count(size_t each) {
    const auto n = get<uint32_t>();
    if (n > (size_ - at_) / each) ok_ = false;
    return ok_ ? n : 0;
  }
  const std::byte* take(size_t n) {
    if (!ok_ || n > size_ - at_) {
      ok_ = false;
      return nullptr;
    }
    at_ += n;
    return data_ + at_ - n;
  }
  void align(size_t to) { take((to - at_ % to) % to); }
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && at_ == size_; }

 private:
  const std::byte* data_;
  size_t size_;
  size_t at_ = 0;
  bool ok_ = true;
};

Status broken(const char* what) { return invalid_model(std::string("broken plan: ") + what); }

Status read_tensor(Reader& in, const std::vector<Blob>& blobs, PlanTensor* t) {
  t->name = in.string();
  t->info.dtype = static_cast<DType>(in.get<uint8_t>());
  t->info.constant = in.get<uint8_t>() == 1;
  const int rank = in.get<uint8_t>();
  if (rank > kMaxRank) return broken("rank too large");
  t->info.shape.rank = rank;
  for (int i = 0; i < rank; ++i) t->info.shape.dims[i] = in.get<int64_t>();
  const auto blob = in.get<uint32_t>();
  if (!in.ok()) return broken("truncated tensor table");
  t->info.present = true;
  if (size_of(t->info.dtype) == 0) return broken("unknown dtype");
  if (!t->info.constant) return {};
  if (blob >= blobs.size()) return broken("blob index out of range");
  if (!is_valid(t->info.shape)) return broken("bad constant shape");
  if (static_cast<size_t>(t->info.shape.elements()) * size_of(t->info.dtype) != blobs[blob].size)
    return broken("constant size does not match its shape");
  t->info.data = blobs[blob].data;
  return {};
}

Status read_input(Reader& in, Plan* plan) {
  PlanInput input{};
  const auto tensor = in.get<uint32_t>();
  const int rank = in.get<uint8_t>();
  if (rank != 255 && rank > kMaxRank) return broken("input rank too large");
  input.rank = rank == 255 ? -1 : rank;
  for (int i = 0; i < input.rank; ++i) input.dims[i] = in.get<int64_t>();
  if (!in.ok() || tensor >= plan->tensors.size()) return broken("input table");
  PlanTensor& t = plan->tensors[tensor];
  if (t.info.constant || t.is_input) return broken("input is a constant or listed twice");
  t.is_input = true;
  input.tensor = static_cast<int>(tensor);
  plan->inputs.push_back(input);
  return {};
}

Status read_ids(Reader& in, const Plan& plan, std::vector<int>* ids) {
  ids->resize(in.count(sizeof(int32_t)));
  for (int& id : *ids) {
    id = in.get<int32_t>();
    if (id < -1 || id >= static_cast<int>(plan.tensors.size())) return broken("tensor id");
  }
  return in.ok() ? Status() : broken("truncated step");
}

constexpr uint8_t kBody = 3;
constexpr int kMaxDepth = 64;

using ParseBody = std::function<Status(const std::byte*, size_t, std::shared_ptr<const Plan>*)>;

Status read_attribute(Reader& in, const ParseBody& parse_body, PlanStep* step) {
  Attrs::Entry e{};
  e.name = in.string();
  const auto kind = in.get<uint8_t>();
  if (kind > kBody) return broken("attribute kind");
  if (kind != kBody) e.kind = static_cast<Attrs::Entry::Kind>(kind);
  const size_t width = kind == Attrs::Entry::kInts ? 8 : kind == Attrs::Entry::kFloats ? 4 : 1;
  e.count = in.count(width);
  in.align(8);
  e.data = in.take(e.count * width);
  if (!in.ok()) return broken("truncated attribute");
  if (kind != kBody) {
    step->attrs.add(e);
    return {};
  }
  step->bodies.push_back({e.name, nullptr});
  return parse_body(static_cast<const std::byte*>(e.data), e.count, &step->bodies.back().plan);
}

Status link_step(const PlanStep& step, int index, Plan* plan) {
  for (int id : step.inputs) {
    if (id < 0) continue;
    PlanTensor& t = plan->tensors[id];
    if (!t.info.constant && !t.is_input && t.producer < 0)
      return broken("tensor read before it is made");
    t.last_use = index;
  }
  for (int id : step.outputs) {
    if (id < 0) continue;
    PlanTensor& t = plan->tensors[id];
    if (t.info.constant || t.is_input || t.producer >= 0) return broken("tensor made twice");
    t.producer = index;
  }
  return {};
}

Status read_step(Reader& in, const ParseBody& parse_body, Plan* plan) {
  PlanStep step;
  step.op = in.string();
  step.kernel = in.string();
  step.name = in.string();
  LEPTON_RETURN_IF_ERROR(read_ids(in, *plan, &step.inputs));
  LEPTON_RETURN_IF_ERROR(read_ids(in, *plan, &step.outputs));
  const uint32_t attributes = in.count(9);
  for (uint32_t i = 0; i < attributes; ++i)
    LEPTON_RETURN_IF_ERROR(read_attribute(in, parse_body, &step));
  if (!in.ok()) return broken("truncated step");
  LEPTON_RETURN_IF_ERROR(link_step(step, static_cast<int>(plan->steps.size()), plan));
  plan->steps.push_back(std::move(step));
  return {};
}

}  // namespace

Status Plan::parse(const std::byte* meta, size_t size, const std::vector<Blob>& blobs, int depth,
                   std::unique_ptr<Plan>* out) {
  if (depth > kMaxDepth) return broken("bodies nested too deep");
  const ParseBody parse_body = [&](const std::byte* data, size_t bytes,
                                   std::shared_ptr<const Plan>* body) -> Status {
    std::unique_ptr<Plan> made;
    LEPTON_RETURN_IF_ERROR(parse(data, bytes, blobs, depth + 1, &made));
    *body = std::move(made);
    return {};
  };
  Reader in(meta, size);
  auto plan = std::make_unique<Plan>();
  plan->meta = {meta, size};
  if (depth == 0) plan->blobs = blobs;
  const std::string isa(in.string());
  plan->producer = in.string();
  if (!in.ok()) return broken("truncated header");
  if (!isa_from_name(isa, &plan->isa)) return broken("unknown instruction set");
  if (!machine_has(plan->isa))
    return unsupported("the plan was made for " + isa + ", which this machine does not have");
  plan->tensors.resize(in.count(11));
  for (PlanTensor& t : plan->tensors) LEPTON_RETURN_IF_ERROR(read_tensor(in, blobs, &t));
  const uint32_t inputs = in.count(5);
  for (uint32_t i = 0; i < inputs; ++i) LEPTON_RETURN_IF_ERROR(read_input(in, plan.get()));
  const uint32_t outputs = in.count(4);
  for (uint32_t i = 0; i < outputs; ++i) {
    const auto id = in.get<uint32_t>();
    if (id >= plan->tensors.size()) return broken("output table");
    plan->outputs.push_back(static_cast<int>(id));
  }
  const uint32_t steps = in.count(24);
  for (uint32_t i = 0; i < steps; ++i)
    LEPTON_RETURN_IF_ERROR(read_step(in, parse_body, plan.get()));
  if (!in.at_end()) return broken("trailing bytes");
  for (int id : plan->outputs) {
    PlanTensor& t = plan->tensors[id];
    if (!t.info.constant && !t.is_input && t.producer < 0) return broken("output is never made");
    t.last_use = kAlways;
  }
  *out = std::move(plan);
  return {};
}

StepDesc describe(const Plan& plan, size_t index) {
  const PlanStep& step = plan.steps[index];
  StepDesc d;
  d.op = step.op;
  d.name = step.name;
  d.kernel = step.kernel;
  d.attrs = &step.attrs;
  d.isa = plan.isa;
  for (int id : step.inputs) d.inputs.push_back(id < 0 ? TensorInfo{} : plan.tensors[id].info);
  for (int id : step.outputs)
    d.outputs.push_back(id < 0 ? DType::kUndefined : plan.tensors[id].info.dtype);
  return d;
}

}  // namespace lepton
