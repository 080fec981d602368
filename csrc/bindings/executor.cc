// Executor: a plan ready to run, with numpy arrays in and out. The GIL is released while it binds
// and runs; host steps take it back.
#include "runtime/executor.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "bindings/bindings.h"
#include "runtime/plan_file.h"

namespace py = pybind11;

namespace lepton {
namespace {

// A Python exception raised by a host step, on its way through the runtime to the caller. Host
// steps run on the thread that called run().
thread_local std::unique_ptr<py::error_already_set> pending_exception;

py::dtype numpy_dtype(DType t) { return py::dtype(std::string(name_of(t))); }

// A read-only numpy view of a tensor that lives as long as the call.
py::array view_of(const TensorInfo& t) {
  std::vector<py::ssize_t> dims(t.shape.begin(), t.shape.end());
  py::array view(numpy_dtype(t.dtype), dims, t.data, py::none());
  view.attr("setflags")(py::arg("write") = false);
  return view;
}

Shape shape_of(const py::array& a) {
  Shape s;
  for (py::ssize_t i = 0; i < a.ndim() && i < kMaxRank; ++i) s.push_back(a.shape(i));
  return s;
}

// Keeps 64-byte aligned bytes as they are, and a copy of the others (unless nothing will run).
class BlobStore {
 public:
  BlobStore(const py::list& arrays, bool to_run) {
    for (const py::handle& item : arrays) {
      auto array = py::array::ensure(py::reinterpret_borrow<py::object>(item), py::array::c_style);
      if (!array) throw py::error_already_set();
      const auto* data = static_cast<const std::byte*>(array.data());
      const auto size = static_cast<size_t>(array.nbytes());
      if (to_run && reinterpret_cast<uintptr_t>(data) % 64 != 0) {
        copies_.emplace_back();
        raise_if_error(copies_.back().reserve(size == 0 ? 1 : size));
        if (size != 0) std::memcpy(copies_.back().data(), data, size);
        data = copies_.back().data();
      } else {
        kept_.push_back(std::move(array));
      }
      blobs_.push_back({data, size});
    }
  }
  const std::vector<Blob>& blobs() const { return blobs_; }

 private:
  std::vector<Blob> blobs_;
  std::vector<py::array> kept_;
  std::vector<Buffer> copies_;
};

// A parsed plan with the bytes it points into.
struct LoadedPlan {
  Buffer meta;
  BlobStore store;
  std::unique_ptr<Plan> plan;

  LoadedPlan(const py::bytes& bytes, const py::list& blobs, bool to_run) : store(blobs, to_run) {
    const std::string_view view = bytes;
    raise_if_error(meta.reserve(view.size() + 1));
    std::memcpy(meta.data(), view.data(), view.size());
    raise_if_error(Plan::parse(meta.data(), view.size(), store.blobs(), &plan));
  }
};

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
    const std::vector<Shape> shapes = check_inputs(inputs);
    std::unique_ptr<Context> context;
    {
      Status status;
      {
        py::gil_scoped_release release;
        status = executor_->acquire(shapes, &context);
      }
      raise_if_error(status);
    }
    std::vector<const void*> in;
    for (const py::handle& a : inputs) in.push_back(py::reinterpret_borrow<py::array>(a).data());
    py::list results = allocate_outputs(*context, outputs);
    std::vector<void*> out;
    for (const py::handle& a : results)
      out.push_back(a.is_none() ? nullptr : py::reinterpret_borrow<py::array>(a).mutable_data());
    run_context(*context, in, out);
    for (size_t i = 0; i < out.size(); ++i)
      if (out[i] == nullptr && results[i].is_none())
        results[i] = copy_of(context->output(static_cast<int>(i)), wanted(outputs, i));
    executor_->release(std::move(context));
    return results;
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
  std::vector<Shape> check_inputs(const py::list& inputs) const {
    const Plan& plan = executor_->plan();
    if (inputs.size() != plan.inputs.size())
      raise_if_error(invalid_input("the model takes " + std::to_string(plan.inputs.size()) +
                                   " inputs, got " + std::to_string(inputs.size())));
    std::vector<Shape> shapes;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const PlanTensor& want = plan.tensors[plan.inputs[i].tensor];
      if (!py::isinstance<py::array>(inputs[i]))
        raise_if_error(invalid_input("input \"" + std::string(want.name) + "\" is not an array"));
      const auto array = py::reinterpret_borrow<py::array>(inputs[i]);
      const bool plain = (array.flags() & py::array::c_style) != 0 && array.ndim() <= kMaxRank;
      if (!plain || !array.dtype().equal(numpy_dtype(want.info.dtype)))
        raise_if_error(invalid_input("input \"" + std::string(want.name) +
                                     "\" must be a C-contiguous " + name_of(want.info.dtype) +
                                     " array of rank 8 at most"));
      shapes.push_back(shape_of(array));
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
    bool fits = py::isinstance<py::array>(given);
    if (fits) {
      const auto array = py::reinterpret_borrow<py::array>(given);
      fits = (array.flags() & py::array::c_style) != 0 && array.writeable() &&
             array.ndim() <= kMaxRank && array.dtype().equal(numpy_dtype(dtype)) &&
             shape_of(array) == shape;
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
                   const std::vector<void*>& out) {
    Status status;
    {
      py::gil_scoped_release release;
      status = context.run(in.data(), out.data(), {&check_signals, nullptr});
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
      .def("bind", &PyExecutor::bind, py::arg("shapes"),
           "Binds to input shapes without running; returns the bytes of working memory, and of "
           "what is alive at once.")
      .def("output_shapes", &PyExecutor::output_shapes, py::arg("shapes"),
           "Shapes of the outputs for these input shapes; None where they depend on data.")
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
