"""_core.pyi says of the extension what the extension says of itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import lepton_rt
from lepton_rt import _core

STUB = Path(lepton_rt.__file__).with_name("_core.pyi")
# What pybind11 writes → what a stub says. It accepts more than one ought to pass.
SAME = [
    (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
    (r"typing\.SupportsFloat \| typing\.SupportsIndex", "float"),
    (r"typing\.Annotated\[numpy\.typing\.ArrayLike, numpy\.\w+\]", "Array"),
    (r"numpy\.typing\.NDArray\[numpy\.\w+\]|numpy\.ndarray|npt\.NDArray\[np\.\w+\]", "Array"),
    (r"\b(typing|collections\.abc|lepton_rt\._core)\.", ""),
    (r"\bobject\b", "Any"),
]


def canonical(annotation: str) -> str:
    for pattern, text in SAME:
        annotation = re.sub(pattern, text, annotation)
    return annotation


def agrees(native: str, stub: str) -> bool:
    """A stub may be more precise: list[Array] for list."""
    native, stub = canonical(native), canonical(stub)
    return native in (stub, "Any") or (
        native in ("list", "dict", "tuple") and stub.startswith(native)
    )


def signature(function: ast.FunctionDef) -> tuple[list[tuple[str, str]], int, str]:
    """(name, annotation) of each argument but self, number of defaults, returned annotation."""
    arguments = [a for a in function.args.args if a.arg != "self"]
    pairs = [(a.arg, ast.unparse(a.annotation) if a.annotation else "") for a in arguments]
    returns = ast.unparse(function.returns) if function.returns else ""
    return pairs, len(function.args.defaults), returns


def native_signature(function: object) -> tuple[list[tuple[str, str]], int, str]:
    line = (function.__doc__ or "").strip().splitlines()[0]
    [parsed] = ast.parse(f"def {line}: ...").body
    assert isinstance(parsed, ast.FunctionDef)
    return signature(parsed)


def stub_names() -> dict[str, ast.FunctionDef | None]:
    """ "name" or "Class.name" → its definition; None for what is not a function."""
    found: dict[str, ast.FunctionDef | None] = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = None
        elif isinstance(node, ast.ClassDef):
            found[node.name] = None
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    found[f"{node.name}.{member.name}"] = member
    return found


def native_names() -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in vars(_core).items():
        if name.startswith("_"):
            continue
        found[name] = value
        if isinstance(value, type):
            for member, inner in vars(value).items():
                if not member.startswith("_") or member == "__init__":
                    is_static = isinstance(inner, staticmethod)
                    found[f"{name}.{member}"] = inner.__func__ if is_static else inner
    return found


def test_same_names() -> None:
    assert set(stub_names()) == set(native_names())


@pytest.mark.parametrize("name", sorted(stub_names()))
def test_same_signature(name: str) -> None:
    stub, native = stub_names()[name], native_names()[name]
    if stub is None:
        return
    if isinstance(native, property):
        assert any(ast.unparse(d) == "property" for d in stub.decorator_list)
        native = native.fget
        line = (native.__doc__ or "").strip().splitlines()[0]
        assert agrees(line.split("-> ")[-1], signature(stub)[2])
        return
    arguments, defaults, returned = signature(stub)
    native_arguments, native_defaults, native_returned = native_signature(native)
    assert [n for n, _ in arguments] == [n for n, _ in native_arguments]
    assert defaults == native_defaults
    assert agrees(native_returned, returned), (native_returned, returned)
    for (argument, annotation), (_, native_annotation) in zip(
        arguments, native_arguments, strict=True
    ):
        assert agrees(native_annotation, annotation), (argument, native_annotation, annotation)
