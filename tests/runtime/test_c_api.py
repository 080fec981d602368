"""The C interface, from a C program: opens a plan, asks about it, runs it, is told its errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
import lepton_rt
from fuzz.seeds import cnn, shapes

PACKAGE = Path(lepton_rt.__file__).parent
HEADER = Path(__file__).parents[2] / "csrc" / "runtime" / "c_api.h"
LIBRARY = PACKAGE / "liblepton_rt.so"

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lepton_rt.h"

static int fail(const char* what) {
  printf("%s: %s\n", what, lepton_error());
  return 1;
}

/* program PLAN INPUT rank dims… : prints every output's name, dtype, rank, dims and values. */
int main(int argc, char** argv) {
  lepton_session* session;
  lepton_tensor input, outputs[4];
  lepton_spec spec;
  size_t i, n;
  FILE* file;
  if (argc < 4) return 2;
  if (lepton_open(argv[1], 2, &session) != LEPTON_OK) return session ? 3 : fail("open");
  if (lepton_num_inputs(session) != 1) return 2;
  if (lepton_input(session, 1, &spec) != LEPTON_INVALID_INPUT) return 2;
  if (lepton_input(session, 0, &spec) != LEPTON_OK) return fail("input");
  printf("%s %d %d\n", spec.name, (int)spec.dtype, (int)spec.rank);
  memset(&input, 0, sizeof input);
  input.rank = atoi(argv[3]);
  for (i = 0, input.bytes = 4; i < (size_t)input.rank; ++i)
    input.bytes *= (size_t)(input.dims[i] = atoi(argv[4 + i]));
  input.data = malloc(input.bytes);
  file = fopen(argv[2], "rb");
  if (fread(input.data, 1, input.bytes, file) != input.bytes) return 2;
  fclose(file);
  memset(outputs, 0, sizeof outputs);
  if (lepton_shapes(session, &input, outputs) != LEPTON_OK) return fail("shapes");
  n = lepton_num_outputs(session);
  for (i = 0; i < n; ++i) {
    printf("expects %d %lu\n", (int)outputs[i].rank, (unsigned long)outputs[i].bytes);
    outputs[i].data = NULL;
  }
  if (lepton_run(session, &input, outputs) != LEPTON_INVALID_INPUT) return 2;
  printf("%s\n", lepton_error());
  for (i = 0; i < n; ++i) outputs[i].data = malloc(outputs[i].bytes = 4096);
  if (lepton_run(session, &input, outputs) != LEPTON_OK) return fail("run");
  for (i = 0; i < n; ++i) {
    int d;
    lepton_output(session, i, &spec);
    printf("%s %d", spec.name, (int)spec.dtype);
    for (d = 0; d < outputs[i].rank; ++d) printf(" %d", (int)outputs[i].dims[d]);
    file = fopen(spec.name, "wb");
    fwrite(outputs[i].data, 1, outputs[i].bytes, file);
    fclose(file);
    printf("\n");
    free(outputs[i].data);
  }
  input.bytes -= 1;
  if (lepton_run(session, &input, outputs) != LEPTON_INVALID_INPUT) return 2;
  if (lepton_run(session, NULL, outputs) != LEPTON_INVALID_INPUT) return 2;
  free(input.data);
  lepton_close(session);
  lepton_close(NULL);
  printf("%s\n", lepton_version());
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("c")
    (folder / "main.c").write_text(PROGRAM)
    # The package has the header in `include`; beside the sources it is c_api.h.
    shutil.copy(HEADER, folder / "lepton_rt.h")
    subprocess.run(
        [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "main.c", "-o", "main",
         str(LIBRARY), f"-Wl,-rpath,{PACKAGE}"],
        cwd=folder,
        check=True,
    )  # fmt: skip
    return folder / "main"


def run(program: Path, folder: Path, plan: Path, x: np.ndarray) -> subprocess.CompletedProcess[str]:
    (folder / "x").write_bytes(x.tobytes())
    command = [program, plan, folder / "x", str(x.ndim), *map(str, x.shape)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_network(program: Path, tmp_path: Path) -> None:
    session = lepton_rt.Session(cnn())
    session.save_plan(tmp_path / "cnn.plan")
    x = np.random.default_rng(0).standard_normal((3, 3, 12, 12)).astype(np.float32)
    done = run(program, tmp_path, tmp_path / "cnn.plan", x)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "x 1 4", "expects 2 60", 'output "y" needs 60 bytes', "y 1 3 5", lepton_rt.__version__,
    ]  # fmt: skip
    y = np.frombuffer((tmp_path / "y").read_bytes(), np.float32).reshape(3, 5)
    np.testing.assert_array_equal(y, session.run(x))


def test_shapes_that_depend_on_data(program: Path, tmp_path: Path) -> None:
    session = lepton_rt.Session(shapes())
    session.save_plan(tmp_path / "shapes.plan")
    x = np.random.default_rng(1).standard_normal((2, 4, 6)).astype(np.float32)
    done = run(program, tmp_path, tmp_path / "shapes.plan", x)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "expects -1 0" in done.stdout
    y, nz = session.run(x)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "y", np.float32), y.reshape(-1))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "nz", np.int64), nz.reshape(-1))


def test_errors_have_words(program: Path, tmp_path: Path) -> None:
    x = np.zeros((1, 3, 12, 12), np.float32)
    (tmp_path / "bad.plan").write_bytes(b"no plan")
    done = run(program, tmp_path, tmp_path / "bad.plan", x)
    assert (done.returncode, done.stdout) == (1, "open: this is not a .plan file\n")
    done = run(program, tmp_path, tmp_path / "missing.plan", x)
    assert "No such file" in done.stdout
    lepton_rt.Session(cnn()).save_plan(tmp_path / "cnn.plan")
    done = run(program, tmp_path, tmp_path / "cnn.plan", x[:, :2])
    assert 'shapes: input "x" cannot have shape [1, 2, 12, 12]' in done.stdout


def test_nothing_else_is_exported() -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not installed")
    text = subprocess.run(
        ["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[-1] for line in text.splitlines()}
    header = HEADER.read_text()
    assert names == {name for name in names if f"{name}(" in header}
    assert "lepton_run" in names
