#include "runtime/c_api.h"

#include <cstring>
#include <new>

#include "ops/custom_op.h"
#include "runtime/executor.h"
#include "runtime/plan_file.h"

static_assert(LEPTON_MAX_RANK == lepton::kMaxRank, "c_api.h repeats it");

// A plan ready to run; the names are those of the plan, ended by zeros.
struct lepton_session {
  std::unique_ptr<lepton::Executor> executor;
  std::vector<std::string> input_names, output_names;
};

namespace lepton {
namespace {

thread_local std::string last_error;

lepton_status code_of(Code code) {
  switch (code) {
    case Code::kOk: return LEPTON_OK;
    case Code::kInvalidModel: return LEPTON_INVALID_MODEL;
    case Code::kInvalidInput: return LEPTON_INVALID_INPUT;
    case Code::kUnsupported: return LEPTON_UNSUPPORTED;
    case Code::kOutOfMemory: return LEPTON_OUT_OF_MEMORY;
    default: return LEPTON_INTERNAL;
  }
}

// Runs body(), a Status(); the standard library may throw, for want of memory.
template <typename F>
lepton_status guarded(const F& body) {
  try {
    const Status status = body();
    if (!status.ok()) last_error = status.message();
    return code_of(status.code());
  } catch (const std::bad_alloc&) {
    last_error.clear();
    return LEPTON_OUT_OF_MEMORY;
  } catch (...) {
    last_error.clear();
    return LEPTON_INTERNAL;
  }
}

size_t bytes_of(DType dtype, const Shape& shape) {
  return static_cast<size_t>(shape.elements()) * size_of(dtype);
}

Status open(const char* path, int threads, lepton_session** out) {
  if (path == nullptr || threads < 0) return invalid_input("a path and threads >= 0 are needed");
  std::unique_ptr<Plan> plan;
  LEPTON_RETURN_IF_ERROR(open_plan(path, &plan));
  auto session = std::make_unique<lepton_session>();
  for (const PlanInput& input : plan->inputs)
    session->input_names.emplace_back(plan->tensors[input.tensor].name);
  for (const int id : plan->outputs) session->output_names.emplace_back(plan->tensors[id].name);
  ExecutorOptions options;
  options.threads = threads;
  LEPTON_RETURN_IF_ERROR(Executor::create(std::move(plan), options, &session->executor));
  *out = session.release();
  return {};
}

Status describe_input(const lepton_session& session, size_t index, lepton_spec* spec) {
  const Plan& plan = session.executor->plan();
  if (index >= plan.inputs.size()) return invalid_input("there is no such input");
  const PlanInput& input = plan.inputs[index];
  *spec = {};
  spec->name = session.input_names[index].c_str();
  spec->dtype = static_cast<int32_t>(plan.tensors[input.tensor].info.dtype);
  spec->rank = input.rank;
  for (int i = 0; i < input.rank; ++i) spec->dims[i] = input.dims[i];
  return {};
}

Status describe_output(const lepton_session& session, size_t index, lepton_spec* spec) {
  const Plan& plan = session.executor->plan();
  if (index >= plan.outputs.size()) return invalid_input("there is no such output");
  *spec = {};
  spec->name = session.output_names[index].c_str();
  spec->dtype = static_cast<int32_t>(plan.tensors[plan.outputs[index]].info.dtype);
  spec->rank = -1;
  return {};
}

Status read_shapes(const lepton_session& session, const lepton_tensor* inputs,
                   std::vector<Shape>* shapes) {
  const size_t count = session.executor->plan().inputs.size();
  for (size_t i = 0; i < count; ++i) {
    if (inputs[i].rank < 0 || inputs[i].rank > kMaxRank)
      return invalid_input("input \"" + session.input_names[i] + "\" has no valid rank");
    shapes->push_back(Shape::of(inputs[i].dims, inputs[i].rank));
  }
  return {};
}

void store_shape(const Shape* shape, DType dtype, lepton_tensor* tensor) {
  tensor->rank = shape == nullptr ? -1 : shape->rank;
  tensor->bytes = shape == nullptr ? 0 : bytes_of(dtype, *shape);
  for (int i = 0; i < tensor->rank; ++i) tensor->dims[i] = shape->dims[i];
}

Status find_shapes(lepton_session& session, const lepton_tensor* inputs, lepton_tensor* outputs) {
  std::vector<Shape> shapes;
  LEPTON_RETURN_IF_ERROR(read_shapes(session, inputs, &shapes));
  std::unique_ptr<Context> context;
  LEPTON_RETURN_IF_ERROR(session.executor->acquire(shapes, &context));
  const Plan& plan = session.executor->plan();
  for (size_t i = 0; i < plan.outputs.size(); ++i)
    store_shape(context->output_shape(static_cast<int>(i)),
                plan.tensors[plan.outputs[i]].info.dtype, &outputs[i]);
  session.executor->release(std::move(context));
  return {};
}

Status too_small(const std::string& name, size_t needed) {
  return invalid_input("output \"" + name + "\" needs " + std::to_string(needed) + " bytes");
}

// Memory for every output whose shape is known, checked; null for the others.
Status find_memory(const lepton_session& session, const Context& context, lepton_tensor* outputs,
                   std::vector<void*>* memory) {
  const Plan& plan = session.executor->plan();
  Status status;
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const Shape* shape = context.output_shape(static_cast<int>(i));
    memory->push_back(shape == nullptr ? nullptr : outputs[i].data);
    if (shape == nullptr) continue;
    const DType dtype = plan.tensors[plan.outputs[i]].info.dtype;
    const size_t room = outputs[i].data == nullptr ? 0 : outputs[i].bytes;
    store_shape(shape, dtype, &outputs[i]);
    if (room < outputs[i].bytes) status = too_small(session.output_names[i], outputs[i].bytes);
  }
  return status;
}

// Results whose shape was not known before: copied out of the context.
Status copy_results(const lepton_session& session, const Context& context,
                    const std::vector<void*>& memory, lepton_tensor* outputs) {
  Status status;
  for (size_t i = 0; i < memory.size(); ++i) {
    if (context.output_shape(static_cast<int>(i)) != nullptr) continue;
    const TensorInfo& result = context.output(static_cast<int>(i));
    const size_t room = outputs[i].data == nullptr ? 0 : outputs[i].bytes;
    store_shape(&result.shape, result.dtype, &outputs[i]);
    const size_t bytes = outputs[i].bytes;
    if (room < bytes)
      status = too_small(session.output_names[i], bytes);
    else if (bytes != 0)
      std::memcpy(outputs[i].data, result.data, bytes);
  }
  return status;
}

Status run(lepton_session& session, const lepton_tensor* inputs, lepton_tensor* outputs) {
  std::vector<Shape> shapes;
  LEPTON_RETURN_IF_ERROR(read_shapes(session, inputs, &shapes));
  std::unique_ptr<Context> context;
  LEPTON_RETURN_IF_ERROR(session.executor->acquire(shapes, &context));
  const Plan& plan = session.executor->plan();
  std::vector<const void*> in;
  for (size_t i = 0; i < plan.inputs.size(); ++i) {
    const size_t bytes = bytes_of(plan.tensors[plan.inputs[i].tensor].info.dtype, shapes[i]);
    if (inputs[i].bytes != bytes || (inputs[i].data == nullptr && bytes != 0))
      return invalid_input("input \"" + session.input_names[i] + "\" must have " +
                           std::to_string(bytes) + " bytes");
    in.push_back(inputs[i].data);
  }
  std::vector<void*> out;
  Status status = find_memory(session, *context, outputs, &out);
  if (status.ok()) status = context->run(in.data(), out.data(), {});
  if (status.ok()) status = copy_results(session, *context, out, outputs);
  if (status.ok()) session.executor->release(std::move(context));
  return status;
}

Status null_argument() { return invalid_input("an argument is NULL"); }

}  // namespace
}  // namespace lepton

extern "C" {

lepton_status lepton_open(const char* path, int threads, lepton_session** session) {
  if (session != nullptr) *session = nullptr;
  return lepton::guarded([&] {
    return session == nullptr ? lepton::null_argument() : lepton::open(path, threads, session);
  });
}

void lepton_close(lepton_session* session) { delete session; }

size_t lepton_num_inputs(const lepton_session* session) { return session->input_names.size(); }
size_t lepton_num_outputs(const lepton_session* session) { return session->output_names.size(); }

lepton_status lepton_input(const lepton_session* session, size_t index, lepton_spec* spec) {
  return lepton::guarded([&] {
    return session == nullptr || spec == nullptr ? lepton::null_argument()
                                                 : lepton::describe_input(*session, index, spec);
  });
}

lepton_status lepton_output(const lepton_session* session, size_t index, lepton_spec* spec) {
  return lepton::guarded([&] {
    return session == nullptr || spec == nullptr ? lepton::null_argument()
                                                 : lepton::describe_output(*session, index, spec);
  });
}

lepton_status lepton_shapes(lepton_session* session, const lepton_tensor* inputs,
                            lepton_tensor* outputs) {
  return lepton::guarded([&] {
    return session == nullptr || inputs == nullptr || outputs == nullptr
               ? lepton::null_argument()
               : lepton::find_shapes(*session, inputs, outputs);
  });
}

lepton_status lepton_run(lepton_session* session, const lepton_tensor* inputs,
                         lepton_tensor* outputs) {
  return lepton::guarded([&] {
    return session == nullptr || inputs == nullptr || outputs == nullptr
               ? lepton::null_argument()
               : lepton::run(*session, inputs, outputs);
  });
}

lepton_status lepton_load_op_library(const char* path) {
  return lepton::guarded([&] {
    std::vector<std::pair<std::string, std::string>> names;
    return path == nullptr ? lepton::null_argument() : lepton::load_op_library(path, &names);
  });
}

const char* lepton_error(void) { return lepton::last_error.c_str(); }
const char* lepton_version(void) { return lepton::library_version(); }

}  // extern "C"
