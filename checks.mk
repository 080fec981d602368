# `make check`: what takes longer than a developer wants to wait for at every change.
.PHONY: check-slow check-scalar check-emulated check-asan check-ubsan check-counts

check: check-slow check-scalar check-emulated check-asan check-ubsan check-counts ## Slow tests, scalar only, emulated, sanitizers, fuzzing, counts

# Large exports, the full fuzzing campaign, the worked example of CONTRIBUTING.md.
check-slow: $(venv)/installed
	$(pytest) -m slow

# Everything once more on the portable code alone.
check-scalar: $(venv)/installed
	LEPTON_MAX_ISA=scalar $(pytest) -n $(PYTEST_WORKERS)

# The kernels for AVX-512, VNNI and AMX where there is AVX2, emulated (csrc/emulation).
check-emulated: $(venv)/installed
	@if echo '#include <simde/x86/avx512.h>' | $${CXX:-c++} -E -x c++ - >/dev/null 2>&1; then \
	  $(MAKE) --no-print-directory build/emulated/python/built && \
	  PYTHONPATH=build/emulated/python $(pytest) -n $(PYTEST_WORKERS) tests/kernels tests/runtime/test_isa.py; \
	else echo "check-emulated: skipped, SIMDe's headers (Debian: libsimde-dev) are not here"; fi

# A sanitizer needs its own extension: build/<preset>/python is a package beside the real one.
build/%/python/built: $(venv)/installed
	$(path) cmake --preset $* -DPython_EXECUTABLE=$(CURDIR)/$(python)
	$(path) cmake --build build/$*
	tar -C python --exclude='*.so' --exclude=__pycache__ -c lepton_rt | tar -C build/$*/python -x
	touch $@

sanitized := tests/kernels tests/conformance tests/runtime tests/fuzz

# Python itself is not instrumented, so the sanitizer's runtime has to come first; and what the
# interpreter never frees is no leak of ours.
check-asan: build/asan/python/built
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	PYTHONPATH=build/asan/python LEPTON_FUZZ_RUNS=500 $(pytest) -n $(PYTEST_WORKERS) $(wildcard $(sanitized))

check-ubsan: build/ubsan/python/built
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	PYTHONPATH=build/ubsan/python LEPTON_FUZZ_RUNS=500 $(pytest) -n $(PYTEST_WORKERS) $(wildcard $(sanitized))

# Instructions of the hot kernels against the recorded ones; COUNTS_ARGS=--record records them anew.
check-counts: build/counts/python/built
	PYTHONPATH=build/counts/python $(python) benchmarks/instruction_counts.py $(COUNTS_ARGS)
