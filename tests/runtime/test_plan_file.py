"""`.plan` files: saved, mapped, validated, refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
import lepton_rt
from fuzz.seeds import all_seeds, cnn, objects
from lepton_rt import _core
from lepton_rt.graph.ir import Value
from lepton_rt.plan import Plan
from xxh64 import HEADER, sealed, xxh64

PACKAGE = Path(lepton_rt.__file__).parent


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "cnn.plan"
    lepton_rt.Session(cnn()).save_plan(path)
    return path


def image(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, 12, 12)).astype(np.float32)


def feed_of(session: lepton_rt.Session) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    feed = {}
    for spec in session.inputs:
        shape = [d if isinstance(d, int) else 2 for d in spec.shape or ()]
        is_float = spec.dtype.kind == "f"
        array = rng.standard_normal(shape) if is_float else rng.integers(0, 4, shape)
        feed[spec.name] = array.astype(spec.dtype)
    return feed


@pytest.mark.parametrize("name", sorted(set(all_seeds()) - {"objects"}))
def test_a_plan_gives_what_the_session_gave(name: str, tmp_path: Path) -> None:
    session = lepton_rt.Session(all_seeds()[name])
    path = tmp_path / "model.plan"
    session.save_plan(path)
    for model in (path, str(path), path.read_bytes()):
        opened = lepton_rt.Session(model)
        feed = feed_of(session)
        for got, want in zip(list(opened.run(feed)), list(session.run(feed)), strict=True):
            np.testing.assert_array_equal(got, want)
        assert opened.inputs == session.inputs
        assert opened.outputs == session.outputs
        assert str(opened.explain()) == str(session.explain())


def test_several_shapes_and_a_copy_of_a_copy(plan: Path, tmp_path: Path) -> None:
    lepton_rt.Session(plan).save_plan(tmp_path / "again.plan")
    assert (tmp_path / "again.plan").read_bytes() == plan.read_bytes()
    session, opened = lepton_rt.Session(cnn()), lepton_rt.Session(tmp_path / "again.plan")
    for batch in (1, 3, 2):
        np.testing.assert_array_equal(opened.run(image(batch)), session.run(image(batch)))


def test_metadata_comes_along(tmp_path: Path) -> None:
    model = cnn()
    entry = model.metadata_props.add()
    entry.key, entry.value = "labels", '["a", "b", "c", "d", "e"]'
    lepton_rt.Session(model).save_plan(tmp_path / "cnn.plan")
    loaded = lepton_rt.load_model(tmp_path / "cnn.plan")
    assert loaded.session.metadata["labels"] == entry.value
    assert {label for label, _ in loaded.predict(image(1))} == set("abcde")


def test_opening_imports_neither_onnx_nor_the_compiler(plan: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", image())
    code = (
        "import sys, numpy as np, lepton_rt\n"
        "y = lepton_rt.Session(sys.argv[1]).run(np.load(sys.argv[2]))\n"
        "heavy = ('onnx', 'torch', 'safetensors', 'lepton_rt.passes', 'lepton_rt.lower',\n"
        "         'lepton_rt.graph.inference', 'lepton_rt.torch_export')\n"
        "print(y.shape, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(plan), str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.stdout.strip() == "(2, 5) []", done.stdout + done.stderr


def test_host_steps_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="native kernel"):
        session = lepton_rt.Session(objects())
    with pytest.raises(lepton_rt.UnsupportedError, match=r"through Python: SplitToSequence"):
        session.save_plan(tmp_path / "host.plan")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_has_no_graph_and_takes_no_options(plan: Path, tmp_path: Path) -> None:
    session = lepton_rt.Session(plan, threads=1)
    assert session.threads == 1
    with pytest.raises(lepton_rt.UnsupportedError, match="no graph"):
        session.graph  # noqa: B018
    with pytest.raises(lepton_rt.UnsupportedError, match="no graph"):
        session.save(tmp_path / "model.onnx")
    with pytest.raises(lepton_rt.UnsupportedError, match="compiled model only"):
        lepton_rt.quantize(plan, [image()])
    for option in ({"isa": "scalar"}, {"optimise": False}, {"state": {}}, {"cache": True}):
        with pytest.raises(lepton_rt.InputError, match="compiled already"):
            lepton_rt.Session(plan, **option)


def test_where_a_plan_cannot_be_written(plan: Path, tmp_path: Path) -> None:
    session = lepton_rt.Session(plan)
    with pytest.raises(lepton_rt.InputError, match=r"saved as \.plan"):
        session.save_plan(tmp_path / "model.onnx")
    with pytest.raises(lepton_rt.InputError, match="No such file"):
        session.save_plan(tmp_path / "nowhere" / "model.plan")
    (tmp_path / "folder.plan").mkdir()
    with pytest.raises(lepton_rt.InputError, match="directory"):
        session.save_plan(tmp_path / "folder.plan")
    assert {path.name for path in tmp_path.iterdir()} == {"cnn.plan", "folder.plan"}


def test_saving_over_an_open_plan_leaves_it_alone(plan: Path) -> None:
    session = lepton_rt.Session(plan)
    expected = session.run(image())
    lepton_rt.Session(all_seeds()["shapes"]).save_plan(plan)
    np.testing.assert_array_equal(session.run(image()), expected)
    assert len(lepton_rt.Session(plan).outputs) == 2


@pytest.mark.parametrize("data", [b"", b"\x89LEPTPLN", b"x" * 500, b"\x89LEPTPLN" + b"\0" * 500])
def test_what_is_no_plan(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(data)
    with pytest.raises((lepton_rt.ModelError, lepton_rt.UnsupportedError), match="plan"):
        lepton_rt.Session(path)
    with pytest.raises(lepton_rt.ModelError, match="no model file"):
        lepton_rt.Session(tmp_path / "missing.plan")


def test_every_damaged_byte_is_noticed(plan: Path) -> None:
    data = plan.read_bytes()
    rng = np.random.default_rng(2)
    for at in [*range(HEADER.size), *rng.integers(HEADER.size, len(data), 200)]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.integers(8)
        if damaged[:8] == data[:8]:
            with pytest.raises((lepton_rt.ModelError, lepton_rt.UnsupportedError), match="plan"):
                lepton_rt.Session(bytes(damaged))
    for size in rng.integers(8, len(data), 50):
        with pytest.raises(lepton_rt.ModelError, match="broken plan"):
            lepton_rt.Session(data[:size])


def altered(data: bytes, field: int, value: object) -> bytes:
    fields = list(HEADER.unpack_from(data))
    fields[field] = value
    return sealed(HEADER.pack(*fields) + data[HEADER.size :])


def test_made_by_another_library(plan: Path) -> None:
    data = plan.read_bytes()
    assert HEADER.unpack_from(data)[5].rstrip(b"\0").decode() == lepton_rt.__version__
    assert HEADER.unpack_from(data)[6].decode() == _core.kernel_digest()
    with pytest.raises(lepton_rt.UnsupportedError, match=r"format 2.*compile the model again"):
        lepton_rt.Session(altered(data, 1, 2))
    with pytest.raises(lepton_rt.UnsupportedError, match=r"lepton_rt 9\.9.*compile the model"):
        lepton_rt.Session(altered(data, 5, b"9.9"))
    with pytest.raises(lepton_rt.UnsupportedError, match="other kernels"):
        lepton_rt.Session(altered(data, 6, b"0" * 64))


def isas() -> list[str]:
    source = Path(__file__).parents[2] / "csrc" / "core" / "isa.inc"
    return re.findall(r"^LEPTON_ISA\((\w+),", source.read_text(), re.MULTILINE)


def with_isa(data: bytes, isa: bytes) -> bytes:
    """A plan for another instruction set: the first string of meta, which starts a new copy."""
    fields = HEADER.unpack_from(data)
    meta = data[fields[7] : fields[7] + fields[8]]
    old = int.from_bytes(meta[:4], "little")
    assert len(isa) == old
    start = fields[7] + 4
    return sealed(data[:start] + isa + data[start + old :])


def test_instruction_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = _core.max_isa()
    lepton_rt.Session(cnn(), isa=best).save_plan(tmp_path / "best.plan")
    data = (tmp_path / "best.plan").read_bytes()
    with pytest.raises(lepton_rt.ModelError, match="unknown instruction set"):
        lepton_rt.Session(with_isa(data, b"x" * len(best)))
    if best != "scalar":
        monkeypatch.setenv("LEPTON_MAX_ISA", "scalar")
        with pytest.raises(lepton_rt.UnsupportedError, match=f"made for {best}.*allows scalar"):
            lepton_rt.Session(data)


def test_an_instruction_set_this_machine_lacks() -> None:
    lacking = [isa for isa in isas() if isa not in _core.machine_isas()]
    if not lacking:
        pytest.skip("this machine has every instruction set that there are kernels for")
    for isa in lacking:
        plan = Plan(isa, {"x": Value(np.dtype(np.float32), (2,))}, ["x"])
        with pytest.raises(lepton_rt.UnsupportedError, match="this machine does not have"):
            _core.Executor(*plan.encode())


def test_checksum_is_xxh64() -> None:
    assert xxh64(b"") == 0xEF46DB3751D8E999
    assert xxh64(b"abc") == 0x44BC2CF5AD770999
    rng = np.random.default_rng(3)
    for size in [*range(70), 1000]:
        data = rng.bytes(size)
        seed = int(rng.integers(2**63))
        assert _core.testing.xxh64(data, seed) == xxh64(data, seed)


def test_a_file_session_reads_its_graph_again(tmp_path: Path) -> None:
    path = tmp_path / "model.lepton"
    lepton_rt.save_lepton(lepton_rt.import_onnx(cnn()), path)
    session = lepton_rt.Session(path)
    assert len(session.graph.nodes) == len(lepton_rt.import_onnx(cnn()).nodes)
    os.utime(path, ns=(1, 1))
    with pytest.raises(lepton_rt.ModelError, match="was changed"):
        session.graph  # noqa: B018
    path.unlink()
    with pytest.raises(lepton_rt.ModelError, match="was changed"):
        session.graph  # noqa: B018
    assert session.run(image()).shape == (2, 5)
