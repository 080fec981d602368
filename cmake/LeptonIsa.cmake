# THE table: ISA suffix → processor family and compiler flags. A source file csrc/<room>/<family>_<suffix>.cc
# is compiled with these flags, and only it.
set(LEPTON_ISA_TABLE
  "scalar|any|"
  "avx2|x86_64|-mavx2 -mfma -mf16c -mbmi2"
  "avxvnni|x86_64|-mavx2 -mfma -mf16c -mbmi2 -mavxvnni"
  "avx512|x86_64|-mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq"
  "avx512vnni|x86_64|-mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni"
  "avx512bf16|x86_64|-mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16"
  "amxint8|x86_64|-mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8"
  "amxbf16|x86_64|-mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16"
)

# For tests on machines without them: AVX-512 by SIMDe, AMX by a model of its tiles (csrc/emulation).
option(LEPTON_EMULATE "Compile kernels beyond AVX2 for machines with AVX2, by emulation" OFF)
if(LEPTON_EMULATE)
  list(TRANSFORM LEPTON_ISA_TABLE REPLACE "^(avx512|avx512vnni|avx512bf16|amxint8|amxbf16)[|].*$"
    "\\1|x86_64|-mavx2 -mfma -mf16c -mbmi2 -I${CMAKE_CURRENT_SOURCE_DIR}/csrc/emulation -Wno-psabi -Wno-ignored-attributes")
  set_source_files_properties(csrc/core/isa.cc PROPERTIES COMPILE_DEFINITIONS LEPTON_EMULATE)
endif()

# The ABI floor of everything else.
if(APPLE)
  message(STATUS "lepton_rt on macOS: the portable scalar kernels only")
  set(LEPTON_PROCESSOR portable)
  set(LEPTON_FLOOR_FLAGS)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(LEPTON_PROCESSOR x86_64)
  set(LEPTON_FLOOR_FLAGS -march=x86-64-v2 -mtune=generic)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(LEPTON_PROCESSOR aarch64)
  set(LEPTON_FLOOR_FLAGS -march=armv8-a)
else()
  message(FATAL_ERROR "lepton_rt supports x86-64 and 64-bit Arm, not ${CMAKE_SYSTEM_PROCESSOR}")
endif()

# LEPTON_HAS_<suffix> = 1 for every ISA that this build compiles, 0 for the others: kernel lists keep
# their metadata everywhere and their function pointers only where the code is.
set(LEPTON_ISA_DEFINITIONS)
foreach(row IN LISTS LEPTON_ISA_TABLE)
  string(REPLACE "|" ";" fields "${row}")
  list(GET fields 0 suffix)
  list(GET fields 1 processor)
  if(processor STREQUAL "any" OR processor STREQUAL LEPTON_PROCESSOR)
    list(APPEND LEPTON_ISA_DEFINITIONS LEPTON_HAS_${suffix}=1)
  else()
    list(APPEND LEPTON_ISA_DEFINITIONS LEPTON_HAS_${suffix}=0)
  endif()
endforeach()

# Finds the kernel files of every ISA in the table that this processor family has, sets their flags,
# and leaves the list in `out`.
function(lepton_kernel_sources out)
  set(sources)
  foreach(row IN LISTS LEPTON_ISA_TABLE)
    string(REPLACE "|" ";" fields "${row}")
    list(GET fields 0 suffix)
    list(GET fields 1 processor)
    list(GET fields 2 flags)
    if(processor STREQUAL "any" OR processor STREQUAL LEPTON_PROCESSOR)
      file(GLOB files CONFIGURE_DEPENDS
        ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cpu/*_${suffix}.cc
        ${CMAKE_CURRENT_SOURCE_DIR}/csrc/neon/*_${suffix}.cc)
      if(flags AND files)
        separate_arguments(flag_list UNIX_COMMAND "${flags}")
        if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND suffix MATCHES "^avx512")
          # GCC 12 takes the undefined operands of its own AVX-512 intrinsics for reads (its bug
          # 105593).
          list(APPEND flag_list -Wno-uninitialized -Wno-maybe-uninitialized)
        endif()
        set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${flag_list}")
      endif()
      list(APPEND sources ${files})
    endif()
  endforeach()
  set(${out} ${sources} PARENT_SCOPE)
endfunction()
