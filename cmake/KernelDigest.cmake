# cmake -DROOT=… -DOUT=… -P KernelDigest.cmake
#
# Writes OUT, which defines lepton::kernel_digest: SHA-256 over what gives a plan its meaning: the
# instruction sets, in csrc/ops the kernel lists, their contracts, packers and drivers, and how a plan
# and the bodies in it are read.
file(GLOB sources RELATIVE ${ROOT}
  ${ROOT}/csrc/core/isa.inc ${ROOT}/csrc/ops/* ${ROOT}/csrc/runtime/plan.* ${ROOT}/csrc/runtime/control_flow.*)
list(SORT sources)
set(all "")
foreach(source IN LISTS sources)
  file(SHA256 ${ROOT}/${source} hash)
  string(APPEND all "${source} ${hash}\n")
endforeach()
string(SHA256 digest "${all}")
file(WRITE ${OUT} "namespace lepton {
extern const char* const kernel_digest;
const char* const kernel_digest = \"${digest}\";
}  // namespace lepton
")
