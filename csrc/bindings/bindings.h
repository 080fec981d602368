// Shared by the binding files: one register_* per area, and Status → Python exceptions.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "core/status.h"

namespace lepton {

void register_system(pybind11::module_& m);
void register_executor(pybind11::module_& m);
void register_custom_op(pybind11::module_& m);
void register_gemm(pybind11::module_& m);
void register_testing(pybind11::module_& m);
void register_testing_conv(pybind11::module_& m);         // after register_testing
void register_testing_elementwise(pybind11::module_& m);  // after register_testing
void register_testing_runtime(pybind11::module_& m);      // after register_testing
void register_testing_nbits(pybind11::module_& m);        // after register_testing
void register_testing_sparse(pybind11::module_& m);       // after register_testing

// The lines of the kernels on AMX tiles with their code on a model of the tile instructions
// (emulation/amx_tiles.h): runs everywhere, for tests only.
struct GemmBf16KernelInfo;
struct GemmS8KernelInfo;
GemmBf16KernelInfo modelled_gemm_bf16();
GemmS8KernelInfo modelled_gemm_s8();

// A new uint8 array of `bytes` elements, 64-byte aligned as plans want their constants, so that the
// executor uses it where it lies. Raises MemoryError.
pybind11::array_t<uint8_t> aligned_bytes(size_t bytes);

// Raises the exception of lepton_rt.errors that fits; returns when status is ok. Needs the GIL.
void raise_if_error(const Status& status);

}  // namespace lepton
