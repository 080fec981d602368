"""What importing and using the package drags in, and what it asks for when something is missing."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lepton_rt

PACKAGE = Path(lepton_rt.__file__).parent
# Import name → the extra that brings it, for what may be imported inside a function only.
OPTIONAL = {"torch", "onnx", "onnxruntime", "onnxscript", "typer", "rich", "PIL", "sklearn",
            "matplotlib", "huggingface_hub", "transformers", "click",
            "google"}  # fmt: skip


def python(code: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter that finds the same package."""
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=env
    )


def test_import_is_light() -> None:
    done = python(
        "import sys, lepton_rt\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'typer', 'rich', 'matplotlib', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_lepton_file_runs_without_torch_and_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from fuzz.seeds import cnn

    path = tmp_path / "model.lepton"
    lepton_rt.save_lepton(lepton_rt.import_onnx(cnn()), path)
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = python(
        "import sys, numpy as np, lepton_rt\n"
        "y = lepton_rt.Session(sys.argv[1]).run(np.load(sys.argv[2]))\n"
        "np.save(sys.argv[3], y)\n"
        "print(sorted({'torch', 'onnx'} & set(sys.modules)))",
        *(str(tmp_path / name) for name in ("model.lepton", "x.npy", "y.npy")),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert np.array_equal(np.load(tmp_path / "y.npy"), lepton_rt.Session(cnn()).run(x))


def imported_at_module_level(source: str) -> set[str]:
    """Top-level names of the packages a module imports when it is imported."""
    names: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.Import):
                names.update(alias.name.split(".")[0] for alias in statement.names)
            elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
                names.add((statement.module or "").split(".")[0])
            elif isinstance(statement, ast.If):
                if "TYPE_CHECKING" not in ast.unparse(statement.test):
                    visit(statement.body)
                visit(statement.orelse)
            elif isinstance(statement, (ast.With, ast.ClassDef)):
                visit(statement.body)

    visit(ast.parse(source).body)
    return names


def test_only_declared_packages_are_imported() -> None:
    """Modules import at their top only the standard library and base dependencies.

    onnx, though a base dependency, counts as optional: a `.lepton` model must run without it.
    """
    base = {"numpy", "safetensors", "lepton_rt", "__future__"}
    allowed = base | set(sys.stdlib_module_names)
    wrong = {}
    for path in PACKAGE.rglob("*.py"):
        extra = imported_at_module_level(path.read_text()) - allowed
        if path.stem.startswith("onnx_"):  # what reads and writes ONNX files
            extra -= {"onnx", "google"}
        if path.is_relative_to(PACKAGE / "cli") and path != PACKAGE / "cli" / "__init__.py":
            extra -= {"typer", "rich"}
        if path.is_relative_to(PACKAGE / "cli" / "demo"):
            extra -= {"torch", "sklearn", "matplotlib"}
        if path.stem == "torch_backend":  # PyTorch imports it, or who has PyTorch
            extra -= {"torch"}
        if extra:
            wrong[str(path.relative_to(PACKAGE))] = sorted(extra)
    assert not wrong


def test_every_import_belongs_to_a_dependency() -> None:
    """Also the imports inside functions name something that an extra declares."""
    allowed = OPTIONAL | {"numpy", "safetensors", "lepton_rt", "__future__", "ml_dtypes"}
    allowed |= set(sys.stdlib_module_names)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots = {(node.module or "").split(".")[0]}
            else:
                continue
            assert roots <= allowed, f"{path.relative_to(PACKAGE)}: {sorted(roots - allowed)}"


BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'typer', 'rich', 'click'}:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Absent())
"""


def test_command_without_its_extra_says_what_to_install() -> None:
    done = python(
        BLOCK + "sys.argv = ['lepton-rt', 'info']\nfrom lepton_rt.cli import main\nsys.exit(main())"
    )
    assert done.returncode != 0
    text = (done.stdout + done.stderr).strip()
    assert "lepton_rt[cli]" in text
    assert "Traceback" not in text
    assert len(text.splitlines()) == 1


def test_version_is_defined_once() -> None:
    try:
        installed = importlib.metadata.version("lepton_rt")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is on the path but not installed")
    assert lepton_rt.__version__ == installed


def test_errors_are_one_family() -> None:
    for name in ("ModelError", "InputError", "UnsupportedError"):
        assert issubclass(getattr(lepton_rt, name), lepton_rt.Error)
    assert issubclass(lepton_rt.InputError, ValueError)
    assert not issubclass(lepton_rt.Error, (ValueError, RuntimeError))
