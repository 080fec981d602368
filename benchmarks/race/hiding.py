"""Environment in which a process, and every library in it, sees AVX2 and nothing newer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("hide_cpuid.c")


def hiding_environment(cache: Path) -> dict[str, str]:
    """Builds `hide_cpuid.c`. Raises RuntimeError without a C compiler or a CPU that can hide."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("hiding CPU features needs a C compiler")
    library = cache / "hide_cpuid.so"
    command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    environment = {
        "LD_PRELOAD": str(library),
        # The C library has chosen its memcpy before the preload gets a say.
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512BW,-AVX512VL,-AVX512DQ,-AVX512CD",
    }
    tried = subprocess.run(
        ["/bin/true"], env={**os.environ, **environment}, capture_output=True, text=True
    )
    if tried.returncode != 0:
        raise RuntimeError(tried.stderr.strip() or "the preload does not run here")
    return environment
