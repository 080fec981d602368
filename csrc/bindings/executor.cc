// Executor: a plan ready to run, with numpy arrays in and out. The GIL is released while it binds
// and runs; host steps take it back.
#include "runtime/executor.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/plan_storage.h"
#include "runtime/plan_file.h"

namespace py = pybind11;

namespace lepton {
namespace {

// A Python exception raised by a host step, on its way through the runtime to the caller. Host
// steps run on the thread that called run().
thread_local std::unique_ptr<py::error_already_set> pending_exception;

bool check_signals(void*) {
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

class PyExecutor {
 public:
  PyExecutor(const py::bytes& meta, const py::list& blobs, int threads, py::object host)
      : loaded_(std::in_place, meta, blobs, true), host_(std::move(host)) {
    ExecutorOptions options;
    options.threads = threads;
    if (!host_.is_none())
      options.host = [this](int64_t id, DynamicArgs& args) { return call_host(id, args); };
    // The plan and what it points into both belong to this object.
    raise_if_error(Executor::create(std::move(loaded_->plan), std::move(options), &executor_));
  }

  PyExecutor(std::unique_ptr<Plan> plan, int threads) : host_(py::none()) {
    ExecutorOptions options;
    options.threads = threads;
    raise_if_error(Executor::create(std::move(plan), std::move(options), &executor_));
  }

  static std::unique_ptr<PyExecutor> open(const std::string& path, int threads) {
    std::unique_ptr<Plan> plan;
    Status status;
    {
      py::gil_scoped_release release;
      status = open_plan(path, &plan);
    }
    raise_if_error(status);
    return std::make_unique<PyExecutor>(std::move(plan), threads);
  }

  static std::unique_ptr<PyExecutor> load(const py::bytes& data, int threads) {
    std::unique_ptr<Plan> plan;
    raise_if_error(read_plan(std::string_view(data), &plan));
    return std::make_unique<PyExecutor>(std::move(plan), threads);
  }

  void save(const std::string& path, const py::bytes& annotations) const {
    const std::string_view text = annotations;
    Status status;
    {
      py::gil_scoped_release release;
      status = save_plan(path, executor_->plan(), text);
    }
    raise_if_error(status);
  }

  // Runs once. outputs: None, or a list with an array (or None) per output to write into.
  py::list run(const py::list& inputs, const py::object& outputs) {
    return run_timed(inputs, outputs, nullptr);
  }

  // The same for the plain case, without detours: one array per input, of its dtype and shape, in C
  // order. Returns the array, or a list of several; None when the case is another.
  py::object run_plain(const py::tuple& inputs) {
    const Plan& plan = executor_->plan();
    if (inputs.size() != plan.inputs.size()) return py::none();
    for (size_t i = 0; i < plan.inputs.size(); ++i)
      if (!is_array_of(inputs[i], plan.tensors[plan.inputs[i].tensor].info.dtype) ||
          !executor_->fits(i, shape_of(py::reinterpret_borrow<py::array>(inputs[i]))))
        return py::none();
    py::list results = run_timed(inputs, py::none(), nullptr);
    if (results.size() == 1) return results[0];
    return std::move(results);
  }

  // Only constants that are memory of their own, not those of a mapped file.
  void use_large_pages() const {
    const py::gil_scoped_release release;
    if (loaded_) move_to_large_pages(loaded_->store.blobs());
  }

  // Runs once; returns the nanoseconds that each step took, 0 for what is known without running.
  std::vector<int64_t> profile(const py::list& inputs) {
    std::vector<int64_t> times(executor_->plan().steps.size());
    run_timed(inputs, py::none(), times.data());
    return times;
  }

  // Binds without running; returns the bytes of working memory, and the least any layout needs.
  std::pair<size_t, size_t> bind(const std::vector<std::vector<int64_t>>& dims) {
    std::vector<Shape> shapes;
    for (const auto& d : dims)
      shapes.push_back(Shape::of(d.data(), std::min<int>(d.size(), kMaxRank)));
    Status status;
    std::pair<size_t, size_t> bytes;
    {
      py::gil_scoped_release release;
      std::unique_ptr<Context> context;
      status = executor_->acquire(shapes, &context);
      if (status.ok()) {
        bytes = {context->arena_bytes(), context->live_bytes()};
        executor_->release(std::move(context));
      }
    }
    raise_if_error(status);
    return bytes;
  }

  // Shapes of the outputs for these input shapes; None where they depend on data.
  py::list output_shapes(const std::vector<std::vector<int64_t>>& dims) {
    std::vector<Shape> shapes;
    for (const auto& d : dims)
      shapes.push_back(Shape::of(d.data(), std::min<int>(d.size(), kMaxRank)));
    std::unique_ptr<Context> context;
    Status status;
    {
      py::gil_scoped_release release;
      status = executor_->acquire(shapes, &context);
    }
    raise_if_error(status);
    py::list found;
    for (size_t i = 0; i < executor_->plan().outputs.size(); ++i) {
      const Shape* shape = context->output_shape(static_cast<int>(i));
      if (shape == nullptr)
        found.append(py::none());
      else
        found.append(py::tuple(py::cast(std::vector<int64_t>(shape->begin(), shape->end()))));
    }
    executor_->release(std::move(context));
    return found;
  }

  int threads() const { return executor_->threads(); }
  const Plan& plan() const { return executor_->plan(); }

 private:
  template <typename Sequence>
  py::list run_timed(const Sequence& inputs, const py::object& outputs, int64_t* step_times) {
    const std::vector<Shape> shapes = check_inputs(inputs);
    std::unique_ptr<Context> context = executor_->take_idle(shapes);
    if (context == nullptr) context = bound(shapes);
    std::vector<const void*> in;
    in.reserve(shapes.size());
    for (const py::handle& a : inputs) in.push_back(py::reinterpret_borrow<py::array>(a).data());
    py::list results = allocate_outputs(*context, outputs);
    std::vector<void*> out;
    out.reserve(results.size());
    for (const py::handle& a : results)
      out.push_back(a.is_none() ? nullptr : py::reinterpret_borrow<py::array>(a).mutable_data());
    run_context(*context, in, out, step_times);
    for (size_t i = 0; i < out.size(); ++i)
      if (out[i] == nullptr && results[i].is_none())
        results[i] = copy_of(context->output(static_cast<int>(i)), wanted(outputs, i));
    executor_->release(std::move(context));
    return results;
  }

  std::unique_ptr<Context> bound(const std::vector<Shape>& shapes) const {
    std::unique_ptr<Context> context;
    Status status;
    {
      py::gil_scoped_release release;
      status = executor_->acquire(shapes, &context);
    }
    raise_if_error(status);
    return context;
  }

  static bool is_array_of(const py::handle& given, DType dtype) {
    if (!py::isinstance<py::array>(given)) return false;
    const auto array = py::reinterpret_borrow<py::array>(given);
    const py::dtype found = array.dtype();
    return (array.flags() & py::array::c_style) != 0 && array.ndim() <= kMaxRank &&
           (found.is(numpy_dtype(dtype)) || found.equal(numpy_dtype(dtype)));
  }

  template <typename Sequence>
  std::vector<Shape> check_inputs(const Sequence& inputs) const {
    const Plan& plan = executor_->plan();
    if (inputs.size() != plan.inputs.size())
      raise_if_error(invalid_input("the model takes " + std::to_string(plan.inputs.size()) +
                                   " inputs, got " + std::to_string(inputs.size())));
    std::vector<Shape> shapes;
    shapes.reserve(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const PlanTensor& want = plan.tensors[plan.inputs[i].tensor];
      if (!is_array_of(inputs[i], want.info.dtype))
        raise_if_error(invalid_input("input \"" + std::string(want.name) +
                                     "\" must be a C-contiguous " + name_of(want.info.dtype) +
                                     " array of rank 8 at most"));
      shapes.push_back(shape_of(py::reinterpret_borrow<py::array>(inputs[i])));
    }
    return shapes;
  }

  static py::object wanted(const py::object& outputs, size_t i) {
    return outputs.is_none() ? py::object(py::none())
                             : py::object(py::reinterpret_borrow<py::list>(outputs)[i]);
  }

  // New arrays for outputs of known shape, None for the others; the caller's own where given.
  py::list allocate_outputs(const Context& context, const py::object& outputs) const {
    const Plan& plan = executor_->plan();
    py::list results;
    for (size_t i = 0; i < plan.outputs.size(); ++i) {
      const Shape* shape = context.output_shape(static_cast<int>(i));
      const DType dtype = plan.tensors[plan.outputs[i]].info.dtype;
      py::object given = wanted(outputs, i);
      if (shape == nullptr) {
        results.append(py::none());
      } else if (!given.is_none()) {
        check_output(given, dtype, *shape, i);
        results.append(given);
      } else {
        results.append(
            py::array(numpy_dtype(dtype), std::vector<py::ssize_t>(shape->begin(), shape->end())));
      }
    }
    return results;
  }

  void check_output(const py::object& given, DType dtype, const Shape& shape, size_t i) const {
    const Plan& plan = executor_->plan();
    bool fits = is_array_of(given, dtype);
    if (fits) {
      const auto array = py::reinterpret_borrow<py::array>(given);
      fits = array.writeable() && shape_of(array) == shape;
    }
    if (!fits)
      raise_if_error(invalid_input("out for \"" + std::string(plan.tensors[plan.outputs[i]].name) +
                                   "\" must be a writable C-contiguous " + name_of(dtype) +
                                   " array of shape " + shape.str()));
  }

  py::object copy_of(const TensorInfo& t, py::object given) const {
    if (given.is_none())
      given =
          py::array(numpy_dtype(t.dtype), std::vector<py::ssize_t>(t.shape.begin(), t.shape.end()));
    else
      raise_if_error(shape_of(given) == t.shape ? Status()
                                                : invalid_input("out has the wrong shape; the "
                                                                "result has " +
                                                                t.shape.str()));
    auto array = py::reinterpret_borrow<py::array>(given);
    if (array.nbytes() != 0) std::memcpy(array.mutable_data(), t.data, array.nbytes());
    return given;
  }

  void run_context(Context& context, const std::vector<const void*>& in,
                   const std::vector<void*>& out, int64_t* step_times) {
    Status status;
    {
      py::gil_scoped_release release;
      status = context.run(in.data(), out.data(), {&check_signals, nullptr}, step_times);
    }
    if (pending_exception) {
      const py::error_already_set raised = *pending_exception;
      pending_exception.reset();
      throw raised;
    }
    if (status.code() == Code::kInterrupted && PyErr_Occurred()) throw py::error_already_set();
    raise_if_error(status);
  }

  Status call_host(int64_t id, DynamicArgs& args) {
    py::gil_scoped_acquire gil;
    try {
      const py::tuple counts = host_.attr("operands")(id);
      py::list inputs;
      for (int i = 0; i < counts[0].cast<int>(); ++i)
        inputs.append(args.input(i).present ? py::object(view_of(args.input(i)))
                                            : py::object(py::none()));
      const py::list outputs = host_.attr("run")(id, inputs);
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (outputs[i].is_none()) continue;
        const auto array = py::array::ensure(outputs[i], py::array::c_style);
        if (!array) throw py::error_already_set();
        LEPTON_RETURN_IF_ERROR(store_output(args, static_cast<int>(i), array));
      }
      return {};
    } catch (const py::error_already_set& e) {
      pending_exception = std::make_unique<py::error_already_set>(e);
      return internal_error("the host step raised an exception");
    }
  }

  static Status store_output(DynamicArgs& args, int i, const py::array& array) {
    if (array.ndim() > kMaxRank) return unsupported("rank above 8");
    // By name: some of these types numpy has only where a package brought them.
    const std::string name = py::str(array.dtype());
    DType dtype = DType::kUndefined;
    for (int t = 1; t <= kLastDType && dtype == DType::kUndefined; ++t) {
      const auto candidate = static_cast<DType>(t);
      if (size_of(candidate) != 0 && name == name_of(candidate)) dtype = candidate;
    }
    void* memory = args.allocate(i, dtype, shape_of(array));
    if (memory == nullptr)
      return internal_error("the host step made an output of unexpected dtype or size");
    if (array.nbytes() != 0) std::memcpy(memory, array.data(), array.nbytes());
    return {};
  }

  std::optional<LoadedPlan> loaded_;  // unless the plan owns its bytes
  py::object host_;
  std::unique_ptr<Executor> executor_;
};

py::str text(std::string_view s) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(s.data(), static_cast<py::ssize_t>(s.size()), "replace"));
}

py::tuple names_of(const Plan& plan, const std::vector<int>& ids) {
  py::tuple names(ids.size());
  for (size_t i = 0; i < ids.size(); ++i)
    names[i] = ids[i] < 0 ? py::str("") : text(plan.tensors[ids[i]].name);
  return names;
}

py::tuple tensor_of(const Plan& plan, int id) {
  const DType dtype = plan.tensors[id].info.dtype;
  return py::make_tuple(text(plan.tensors[id].name), name_of(dtype));
}

void add_steps(const Plan& plan, py::list* rows) {
  for (const PlanStep& step : plan.steps) {
    py::tuple dtypes(step.outputs.size());
    for (size_t i = 0; i < step.outputs.size(); ++i)
      dtypes[i] = step.outputs[i] < 0 ? "" : name_of(plan.tensors[step.outputs[i]].info.dtype);
    rows->append(py::make_tuple(text(step.op), text(step.kernel), text(step.name),
                                names_of(plan, step.inputs), names_of(plan, step.outputs), dtypes));
    for (const PlanBody& body : step.bodies) add_steps(*body.plan, rows);
  }
}

// (operator, kernel, name, input names, output names, dtypes of the outputs) of every step; those
// of a body follow the step it belongs to.
py::list steps(const PyExecutor& executor) {
  py::list rows;
  add_steps(executor.plan(), &rows);
  return rows;
}

py::list inputs(const PyExecutor& executor) {
  py::list rows;
  for (const PlanInput& input : executor.plan().inputs)
    rows.append(tensor_of(executor.plan(), input.tensor));
  return rows;
}

py::list outputs(const PyExecutor& executor) {
  py::list rows;
  for (const int id : executor.plan().outputs) rows.append(tensor_of(executor.plan(), id));
  return rows;
}

// Bytes of the constants, packed weights included.
size_t constant_bytes(const PyExecutor& executor) {
  size_t bytes = 0;
  for (const Blob& blob : executor.plan().blobs) bytes += blob.size;
  return bytes;
}

// Index and reason of every step that has no native kernel here.
std::vector<std::pair<size_t, std::string>> rejected_steps(const py::bytes& meta,
                                                           const py::list& blobs) {
  const LoadedPlan loaded(meta, blobs, false);
  std::vector<std::pair<size_t, std::string>> rejected;
  for (size_t i = 0; i < loaded.plan->steps.size(); ++i) {
    if (!loaded.plan->steps[i].bodies.empty()) continue;  // its bodies were asked about before
    std::unique_ptr<Op> op;
    const Status status = make_op(describe(*loaded.plan, i), nullptr, &op);
    if (status.code() == Code::kUnsupported) rejected.emplace_back(i, status.message());
  }
  return rejected;
}

}  // namespace

void register_executor(py::module_& m) {
  py::class_<PyExecutor>(m, "Executor", "A plan ready to run. Thread-safe.")
      .def(py::init<const py::bytes&, const py::list&, int, py::object>(), py::arg("meta"),
           py::arg("blobs"), py::arg("threads") = 0, py::arg("host") = py::none())
      .def("run", &PyExecutor::run, py::arg("inputs"), py::arg("outputs") = py::none(),
           "Runs once: C-contiguous arrays in plan order in, a list of arrays out.")
      .def("run_plain", &PyExecutor::run_plain, py::arg("inputs"),
           "Runs once if every input is a C-contiguous array of the right dtype and shape: returns "
           "the array, or a list of several. Else returns None.")
      .def("profile", &PyExecutor::profile, py::arg("inputs"),
           "Runs once; the nanoseconds that each step took.")
      .def("bind", &PyExecutor::bind, py::arg("shapes"),
           "Binds to input shapes without running; returns the bytes of working memory, and of "
           "what is alive at once.")
      .def("output_shapes", &PyExecutor::output_shapes, py::arg("shapes"),
           "Shapes of the outputs for these input shapes; None where they depend on data.")
      .def("use_large_pages", &PyExecutor::use_large_pages,
           "Moves constants to large pages where the system can; once memory has settled.")
      .def_static("open", &PyExecutor::open, py::arg("path"), py::arg("threads") = 0,
                  "Maps a .plan file.")
      .def_static("load", &PyExecutor::load, py::arg("data"), py::arg("threads") = 0,
                  "Takes the bytes of a .plan file.")
      .def("save", &PyExecutor::save, py::arg("path"), py::arg("annotations"),
           "Writes a .plan file with the annotations; refuses host steps.")
      .def_property_readonly("threads", &PyExecutor::threads)
      .def_property_readonly(
          "isa", [](const PyExecutor& e) { return std::string(name_of(e.plan().isa)); },
          "Instruction set the plan was made for.")
      .def_property_readonly(
          "annotations", [](const PyExecutor& e) { return py::bytes(e.plan().annotations); },
          "What save() was given, of a plan from a file.")
      .def_property_readonly("inputs", &inputs, "(name, dtype) of every input.")
      .def_property_readonly("outputs", &outputs, "(name, dtype) of every output.")
      .def_property_readonly("steps", &steps,
                             "(operator, kernel, name, inputs, outputs, output dtypes) of every "
                             "step.")
      .def_property_readonly("constant_bytes", &constant_bytes,
                             "Bytes of the constants, packed weights included.");
  m.def("rejected_steps", &rejected_steps, py::arg("meta"), py::arg("blobs"),
        "(index, reason) of every step that has no native kernel.");
}

}  // namespace lepton
