// The extension module: one register_* per bound class or area, each in its own file.
#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native runtime of lepton_rt.";
  lepton::register_system(m);
  lepton::register_executor(m);
  lepton::register_custom_op(m);
  lepton::register_gemm(m);
  lepton::register_testing(m);
  lepton::register_testing_conv(m);
  lepton::register_testing_elementwise(m);
  lepton::register_testing_runtime(m);
  lepton::register_testing_nbits(m);
  lepton::register_testing_sparse(m);
}
