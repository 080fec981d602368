"""Follows the worked example of CONTRIBUTING.md: one new file and one line make a new kernel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ["CMakeLists.txt", "CMakePresets.json", "cmake", "csrc", "python", "tests"]
NAME = "gemm_f32_2x8_scalar"

CHECK = f"""
import numpy as np
from lepton_rt import _core
from harness import run_op

assert {NAME!r} in [line["name"] for line in _core.kernels()]
rng = np.random.default_rng(0)
for m, k, n in [(1, 1, 1), (2, 3, 8), (3, 17, 9), (5, 64, 31), (4, 0, 5), (33, 20, 16)]:
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    [y] = run_op("MatMul", [a, b], kernel={NAME!r}, threads=2)
    np.testing.assert_allclose(y, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)
for m in (1, 2):  # the kernel alone, between guard pages
    a, b = rng.standard_normal((m, 7)), rng.standard_normal((7, 8))
    flat = [x.astype(np.float32).ravel() for x in (a, b)]
    y = _core.testing.gemm_f32({NAME!r}, m, 7, flat[0], 7, flat[1], at_start=False)
    np.testing.assert_allclose(y.reshape(2, 8)[:m], a @ b, rtol=1e-5, atol=1e-5)
"""


def worked_example() -> dict[str, str]:
    """Path → text of the blocks in CONTRIBUTING.md that name a file."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"^```cpp file=(\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def run(command: list[str], **kwargs: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_the_example_is_one_file_and_one_line() -> None:
    example = worked_example()
    new = [path for path in example if not (ROOT / path).exists()]
    assert new == [f"csrc/cpu/{NAME}.cc"]
    [(changed, line)] = [(p, t) for p, t in example.items() if p not in new]
    assert changed == "csrc/ops/gemm_f32_kernels.inc"
    assert line.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_example_works(tmp_path: Path) -> None:
    """Builds a copy of the tree with the example in it, and runs the new kernel by name."""
    if shutil.which("cmake") is None or shutil.which("ninja") is None:
        pytest.skip("cmake and ninja are needed")
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    for path, text in worked_example().items():
        with (tmp_path / path).open("a") as file:
            file.write(text)
    configure = ["cmake", "--preset", "release", f"-DPython_EXECUTABLE={sys.executable}"]
    if shutil.which("ccache"):
        configure.append("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")
    environment = {**os.environ, "CCACHE_BASEDIR": str(tmp_path), "CCACHE_NOHASHDIR": "1"}
    run(configure, cwd=tmp_path, env=environment)
    run(["cmake", "--build", "build/release"], cwd=tmp_path, env=environment)
    path = os.pathsep.join([str(tmp_path / "python"), str(tmp_path / "tests")])
    run([sys.executable, "-c", CHECK], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
