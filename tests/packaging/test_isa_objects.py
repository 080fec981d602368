"""Objects built with special instructions must not share functions with portable code.

An inline function or template that an AVX2 file instantiates is a weak symbol; the linker keeps one
copy for the whole library, and if that is the AVX2 one, portable code dies on an older processor.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = Path(os.environ.get("LEPTON_BUILD_DIR", ROOT / "build" / "wheel"))


def isa_suffixes() -> list[str]:
    """The table's suffixes that have flags of their own."""
    table = (ROOT / "cmake" / "LeptonIsa.cmake").read_text()
    rows = re.findall(r'^ *"(\w+)\|\w+\|(.*)"$', table, re.MULTILINE)
    return [suffix for suffix, flags in rows if flags]


def symbols(path: Path) -> list[tuple[str, str]]:
    """Defined symbols as (type letter, name)."""
    text = subprocess.run(
        ["nm", "--defined-only", "-C", str(path)], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(maxsplit=2) for line in text.splitlines()]
    return [(row[1], row[2]) for row in rows if len(row) == 3]


@pytest.fixture(scope="module")
def objects() -> dict[str, list[Path]]:
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not installed")
    if not BUILD.is_dir():
        pytest.skip(f"no objects to look at: {BUILD} does not exist")
    return {s: sorted(BUILD.rglob(f"*_{s}.cc.o")) for s in isa_suffixes()}


def test_isa_objects_define_nothing_weak(objects: dict[str, list[Path]]) -> None:
    wrong = {
        path.name: weak
        for paths in objects.values()
        for path in paths
        if (weak := [name for kind, name in symbols(path) if kind in "WwVvu"])
    }
    assert not wrong


def test_isa_objects_export_only_kernels(objects: dict[str, list[Path]]) -> None:
    """Every strong symbol is a kernel: a function whose name ends in the ISA's suffix."""
    for suffix, paths in objects.items():
        for path in paths:
            strong = [name for kind, name in symbols(path) if kind in "TDBR"]
            for name in strong:
                function = name.split("(")[0].split("::")[-1]
                assert function.endswith(f"_{suffix}"), f"{path.name} exports {name}"


def test_every_isa_file_was_compiled(objects: dict[str, list[Path]]) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the table's ISAs are those of x86-64")
    for suffix, paths in objects.items():
        sources = {p.name for p in (ROOT / "csrc" / "cpu").glob(f"*_{suffix}.cc")}
        assert {p.name.removesuffix(".o") for p in paths} >= sources


def test_extension_exports_only_its_entry_point() -> None:
    core = pytest.importorskip("lepton_rt._core")
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not installed")
    text = subprocess.run(
        ["nm", "-D", "--defined-only", "-C", core.__file__],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {line.split(maxsplit=2)[2] for line in text.splitlines() if " T " in line}
    assert not [n for n in names if "lepton" in n.lower()]
    assert "PyInit__core" in names
