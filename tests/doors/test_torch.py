"""PyTorch modules and exported programs as models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn

import lepton_rt


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(8 * 8 * 8, 10),
    )


class TwoInputs(nn.Module):
    def forward(self, x: Any, scale: Any, shift: Any = None) -> dict[str, Any]:
        y = x * scale
        return {"sum": y.sum(-1), "product": y if shift is None else y + shift}


def expected(module: Any, *inputs: Any) -> Any:
    training = module.training
    module.eval()
    with torch.no_grad():
        result = module(*inputs)
    module.train(training)
    return result


@pytest.mark.parametrize(
    "dynamic, example_size",
    [
        (True, 1),
        ({"input": {0: "n"}}, 3),
        (({0: torch.export.Dim("n")},), 1),
        ({"input": {0: torch.export.Dim.DYNAMIC}}, 1),
    ],
)
def test_dynamic_batch(dynamic: Any, example_size: int) -> None:
    module = network()
    session = lepton_rt.Session(
        module, example_inputs=torch.randn(example_size, 3, 8, 8), dynamic=dynamic
    )
    assert module.training
    assert module[3].training
    for size in (1, 5):
        x = torch.randn(size, 3, 8, 8)
        got = session(x)
        assert isinstance(got, torch.Tensor)
        torch.testing.assert_close(got, expected(module, x), rtol=1e-4, atol=1e-5)


def test_static_and_quiet(capfd: pytest.CaptureFixture[str], recwarn: Any) -> None:
    module = network().eval()
    session = lepton_rt.Session(module, example_inputs=(np.zeros((2, 3, 8, 8), np.float32),))
    assert session.inputs[0].shape == (2, 3, 8, 8)
    assert not module.training
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)
    with pytest.raises(lepton_rt.InputError):
        session(torch.zeros(3, 3, 8, 8))


def test_mixed_modes_are_restored() -> None:
    module = network()
    module[1].eval()
    lepton_rt.Session(module, example_inputs=torch.zeros(2, 3, 8, 8))
    assert module.training
    assert not module[1].training
    assert module[3].training


def test_arguments_by_name_and_several_outputs() -> None:
    module = TwoInputs()
    x, scale = torch.randn(4, 6), torch.randn(6)
    session = lepton_rt.Session(
        module, example_inputs={"x": x, "scale": scale}, dynamic={"x": {0: "rows"}}
    )
    assert [(i.name, i.shape) for i in session.inputs] == [("x", ("rows", 6)), ("scale", (6,))]
    other = torch.randn(7, 6)
    for got, want in zip(session(other, scale), module(other, scale).values()):
        torch.testing.assert_close(got, want)


def test_exported_program() -> None:
    module = network().eval()
    program = torch.export.export(
        module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    session = lepton_rt.Session(program)
    x = torch.randn(6, 3, 8, 8)
    torch.testing.assert_close(session(x), expected(module, x), rtol=1e-4, atol=1e-5)
    with pytest.raises(lepton_rt.InputError, match="brings its own"):
        lepton_rt.Session(program, example_inputs=x)


def test_what_goes_wrong_is_said() -> None:
    module = network()
    with pytest.raises(lepton_rt.InputError, match="example inputs"):
        lepton_rt.Session(module)
    x = torch.zeros(1, 3, 8, 8)
    with pytest.raises(lepton_rt.InputError, match="dynamic names y"):
        lepton_rt.Session(module, example_inputs=x, dynamic={"y": {0: "n"}})
    with pytest.raises(lepton_rt.InputError, match="do not fit"):
        lepton_rt.Session(module, example_inputs=(x, x), dynamic=True)
    with pytest.raises(lepton_rt.InputError, match="PyTorch"):
        lepton_rt.Session(b"", example_inputs=x)

    class Unexportable(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if float(x.sum()) > 0 else -x

    module = Unexportable()
    with pytest.raises(lepton_rt.UnsupportedError, match="cannot export"):
        lepton_rt.Session(module, example_inputs=torch.zeros(3))
    assert module.training


def test_missing_exporter_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name)
    )
    with pytest.raises(lepton_rt.UnsupportedError, match=r"lepton_rt\[torch\]") as caught:
        lepton_rt.Session(network(), example_inputs=torch.zeros(1, 3, 8, 8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [list, iter])
def test_quantize_a_module(kind: Any) -> None:
    module = network()
    batches = [torch.randn(4, 3, 8, 8) for _ in range(3)] + [torch.randn(2, 3, 8, 8)]
    small = lepton_rt.quantize(module, kind(batches), progress=False)
    x = batches[0]
    got, want = lepton_rt.Session(small)(x), expected(module, x)
    assert float((got - want).std() / want.std()) < 0.1
    assert any(node.op == "QuantizeLinear" for node in small.graph.nodes)


def test_numpy_models_do_not_import_torch() -> None:
    path = os.pathsep.join(
        [str(Path(lepton_rt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-c", "import sys, lepton_rt.session, lepton_rt.torch_export\n"
         "print('torch' in sys.modules)"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.strip() == "False", done.stderr
