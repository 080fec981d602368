// _core.testing for the families of this list: micro-ops, conversions, rows of reductions, softmax
// and normalisation. Every operand is a guarded copy, exactly as long as its contract says.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/guarded_buffer.h"
#include "core/isa.h"
#include "ops/convert.h"
#include "ops/elementwise.h"
#include "ops/norm_kernels.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "ops/softmax_kernels.h"

namespace py = pybind11;

namespace lepton {
namespace {

Isa isa_named(const std::string& name) {
  Isa isa;
  if (!isa_from_name(name, &isa)) throw py::value_error("isa");
  return isa;
}

Compute compute_named(const std::string& name) {
  if (name == "f32") return Compute::kF32;
  if (name == "f64") return Compute::kF64;
  if (name == "i64") return Compute::kI64;
  if (name == "u64") return Compute::kU64;
  throw py::value_error("compute");
}

struct OpLine {
  const char* name;
  int fewest, most;
};
const OpLine kOps[] = {
#define LEPTON_MICRO_OP(name, fewest, most, cost) {#name, fewest, most},
#include "ops/elementwise_ops.inc"
#undef LEPTON_MICRO_OP
};

// Names and operand counts of the ops that a compute type has, and whether an isa beats scalar.
py::list micro_ops(const std::string& compute, const std::string& isa) {
  py::list found;
  for (size_t i = 0; i < std::size(kOps); ++i) {
    const auto op = static_cast<MicroOp>(i);
    const MicroFn fn = find_micro(op, compute_named(compute), isa_named(isa));
    if (fn == nullptr) continue;
    const bool own = fn != find_micro(op, compute_named(compute), Isa::k_scalar);
    found.append(py::make_tuple(kOps[i].name, kOps[i].most, own));
  }
  return found;
}

GuardedBuffer guarded(const py::array& array, bool at_start) {
  return GuardedBuffer(array.data(), static_cast<size_t>(array.nbytes()), at_start);
}

py::array copied(const GuardedBuffer& buffer, const py::dtype& dtype, size_t n) {
  py::array out(dtype, static_cast<py::ssize_t>(n));
  std::memcpy(out.mutable_data(), buffer.as<uint8_t>(), static_cast<size_t>(out.nbytes()));
  return out;
}

// One micro-op over n elements. Operands of one element where their bit of `splat` is set, else of
// n. in_place: the operand that the result overwrites, or −1.
py::array micro(const std::string& name, const std::string& compute, const std::string& isa,
                const std::vector<py::array>& inputs, uint32_t splat, size_t n, int in_place,
                bool at_start) {
  size_t op = 0;
  while (op < std::size(kOps) && name != kOps[op].name) ++op;
  if (op == std::size(kOps) || inputs.size() != static_cast<size_t>(kOps[op].most))
    throw py::value_error("op");
  const MicroFn fn = find_micro(static_cast<MicroOp>(op), compute_named(compute), isa_named(isa));
  if (fn == nullptr) throw py::value_error("no kernel");
  std::vector<std::unique_ptr<GuardedBuffer>> buffers;
  MicroArgs args{};
  args.n = n;
  args.splat = splat;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const size_t expected = (splat >> i & 1) != 0 ? 1 : n;
    if (static_cast<size_t>(inputs[i].size()) != expected) throw py::value_error("operand size");
    buffers.push_back(std::make_unique<GuardedBuffer>(
        inputs[i].data(), static_cast<size_t>(inputs[i].nbytes()), at_start));
    args.in[i] = buffers.back()->as<void>();
  }
  const py::dtype dtype = inputs[0].dtype();
  const GuardedBuffer out(nullptr, n * static_cast<size_t>(dtype.itemsize()), at_start);
  const GuardedBuffer& target = in_place < 0 ? out : *buffers.at(static_cast<size_t>(in_place));
  args.out = target.as<void>();
  fn(args);
  return copied(target, dtype, n);
}

// n elements of `src` to or from the compute type; `like` gives the dtype of the result.
py::array convert(int dtype, const std::string& compute, const std::string& isa, bool is_load,
                  const py::array& src, const py::dtype& like, bool at_start) {
  const auto find = is_load ? find_load : find_store;
  const ConvertFn fn = find(compute_named(compute), static_cast<DType>(dtype), isa_named(isa));
  if (fn == nullptr) throw py::value_error("no kernel");
  const size_t n = static_cast<size_t>(src.size());
  const GuardedBuffer from = guarded(src, at_start);
  const GuardedBuffer to(nullptr, n * static_cast<size_t>(like.itemsize()), at_start);
  fn(from.as<void>(), to.as<void>(), n);
  return copied(to, like, n);
}

using Floats = py::array_t<float, py::array::c_style>;

// Rows [rows, width] with no gap after the last element; axis 1 by row kernels, axis 0 by column
// kernels.
std::vector<double> reduce(int op, const std::string& isa, const Floats& x, size_t rows,
                           size_t width, size_t stride, int axis, double start, bool at_start) {
  const ReduceKernel kernel = find_reduce(static_cast<ReduceOp>(op), isa_named(isa));
  if (static_cast<size_t>(x.size()) != (rows - 1) * stride + width) throw py::value_error("size");
  const GuardedBuffer data = guarded(x, at_start);
  const float* p = data.as<float>();
  std::vector<double> result;
  if (axis == 1) {
    for (size_t i = 0; i < rows; ++i) result.push_back(kernel.row(p + i * stride, width, 0.5f));
    return result;
  }
  result.assign(width, start);
  const GuardedBuffer acc(result.data(), width * sizeof(double), at_start);
  const std::vector<float> shifts(width, 0.5f);
  const GuardedBuffer shift(shifts.data(), width * sizeof(float), at_start);
  kernel.columns(p, rows, stride, width, shift.as<float>(), acc.as<double>());
  std::memcpy(result.data(), acc.as<double>(), width * sizeof(double));
  return result;
}

py::array softmax(const std::string& isa, const Floats& x, size_t n, size_t width, bool log,
                  bool at_start) {
  const SoftmaxKernels kernels = find_softmax(isa_named(isa));
  if (static_cast<size_t>(x.size()) != n * width) throw py::value_error("size");
  const GuardedBuffer in = guarded(x, at_start);
  const GuardedBuffer out(nullptr, static_cast<size_t>(x.nbytes()), at_start);
  if (width == 1)
    kernels.row(in.as<float>(), out.as<float>(), n, log);
  else
    kernels.columns(in.as<float>(), out.as<float>(), n, width, width, log);
  return copied(out, x.dtype(), n * width);
}

// Layer normalisation of one row from its passes; beta may be empty.
py::tuple norm(const std::string& isa, const Floats& x, const Floats& gamma, const Floats& beta,
               bool at_start) {
  const NormKernels kernels = find_norm(isa_named(isa));
  const size_t n = static_cast<size_t>(x.size());
  const GuardedBuffer in = guarded(x, at_start), scale = guarded(gamma, at_start);
  const GuardedBuffer shift = guarded(beta, at_start);
  const GuardedBuffer out(nullptr, static_cast<size_t>(x.nbytes()), at_start);
  const double sum = kernels.sum(in.as<float>(), n);
  const double square = kernels.sum_square(in.as<float>(), n, 0.25f);
  kernels.normalize({in.as<float>(), out.as<float>(), n, 0.25f, 2.0f, scale.as<float>(),
                     beta.size() != 0 ? shift.as<float>() : nullptr});
  const py::array normalized = copied(out, x.dtype(), n);
  kernels.affine(in.as<float>(), out.as<float>(), n, 3.0f, -1.0f);
  return py::make_tuple(sum, square, normalized, copied(out, x.dtype(), n));
}

}  // namespace

void register_testing_elementwise(py::module_& m) {
  py::module_ testing = m.attr("testing");
  using py::arg;
  testing.def("micro_ops", &micro_ops, arg("compute"), arg("isa"));
  testing.def("micro", &micro, arg("name"), arg("compute"), arg("isa"), arg("inputs"), arg("splat"),
              arg("n"), arg("in_place") = -1, arg("at_start") = false);
  testing.def("convert", &convert, arg("dtype"), arg("compute"), arg("isa"), arg("is_load"),
              arg("src"), arg("like"), arg("at_start") = false);
  testing.def("reduce", &reduce, arg("op"), arg("isa"), arg("x"), arg("rows"), arg("width"),
              arg("stride"), arg("axis"), arg("start") = 0.0, arg("at_start") = false);
  testing.def("softmax", &softmax, arg("isa"), arg("x"), arg("n"), arg("width"), arg("log"),
              arg("at_start") = false);
  testing.def("norm", &norm, arg("isa"), arg("x"), arg("gamma"), arg("beta"),
              arg("at_start") = false);
}

}  // namespace lepton
