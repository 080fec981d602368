// The extension module: one register_* per bound class or area, each in its own file.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_core, m) { m.doc() = "Native runtime of lepton_rt."; }
