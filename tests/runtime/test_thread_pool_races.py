"""The thread pool alone under ThreadSanitizer, compiled here; the extension needs no such build."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("c++")
# Another sanitizer's runtime, loaded first for the extension's sake, would be in the way.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("processors", [2, 4])
def test_loops_of_several_callers_are_free_of_races(processors: int, tmp_path: Path) -> None:
    """With two processors callers crowd the workers out, with four they share them."""
    source = (ROOT / "csrc" / "core" / "thread_pool.cc").read_text()
    counted = "const int processors_ = usable_processors();"
    assert counted in source
    pool = tmp_path / "thread_pool.cc"
    pool.write_text(source.replace(counted, f"const int processors_ = {processors};"))
    stress = tmp_path / "stress"
    sources = [str(pool), str(Path(__file__).with_name("thread_pool_stress.cc"))]
    flags = ["-std=c++17", "-O1", "-g", "-pthread", "-fsanitize=thread", f"-I{ROOT / 'csrc'}"]
    assert COMPILER is not None
    built = run(COMPILER, *flags, *sources, "-o", str(stress))
    if "tsan" in built.stderr:
        pytest.skip("the compiler has no ThreadSanitizer")
    assert built.returncode == 0, built.stderr
    ran = run(str(stress))
    if "unexpected memory mapping" in ran.stderr:
        pytest.skip("ThreadSanitizer does not know this kernel's address space")
    assert ran.returncode == 0, ran.stderr
