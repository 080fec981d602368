"""torch.compile with lepton_rt behind it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn

from lepton_rt import torch_backend

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("error:part of the model:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    torch._dynamo.reset()
    torch_backend._warned.clear()
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    torch._dynamo.reset()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Sessions made so far."""
    sessions: list[Any] = []
    real = torch_backend.Session

    def session(*args: Any, **kwargs: Any) -> Any:
        sessions.append(real(*args, **kwargs))
        return sessions[-1]

    monkeypatch.setattr(torch_backend, "Session", session)
    return sessions


def network() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_batch_sizes_and_new_weights(made: list[Any]) -> None:
    module = network()
    compiled = torch.compile(module, backend="lepton", options={"threads": 1})
    for size in (3, 5, 7, 9):
        x = torch.randn(size, 4)
        close(compiled(x), module(x))
    assert len(made) == 2  # dynamo makes the batch size a symbol when it sees the second
    assert made[0].threads == 1
    assert len(made[0].inputs) == 1
    module[0].weight.mul_(2)
    close(compiled(x), module(x))
    assert len(made) == 3


def test_marked_dynamic(made: list[Any]) -> None:
    module = network()
    compiled = torch.compile(module, backend="lepton")
    x = torch.randn(3, 4)
    torch._dynamo.mark_dynamic(x, 0)
    close(compiled(x), module(x))
    close(compiled(torch.ones(6, 4)), module(torch.ones(6, 4)))
    assert len(made) == 1


def test_graph_breaks_and_kinds_of_results(made: list[Any]) -> None:
    weight = torch.randn(4, 4)

    def function(x: Any, y: Any) -> Any:
        a = x @ weight
        if a.sum() > 0:
            return {"y": y, "a": a * 2, "none": None, "again": a * 2 + y.mean(), "n": 3}
        return a - y

    compiled = torch.compile(function, backend="lepton")
    for sign in (1.0, -1.0):
        x, y = sign * (weight.sum(1) + torch.rand(2, 4)), torch.randn(2, 4)
        got, want = compiled(x, y), function(x, y)
        assert type(got) is type(want)
        if isinstance(want, dict):
            assert got.keys() == want.keys()
            assert got["y"] is y
            assert got["none"] is None
            assert got["n"] == 3
            close(got["again"], want["again"])
            close(got["a"], want["a"])
        else:
            close(got, want)
    assert len(made) >= 2


def test_shared_code_with_other_weights(made: list[Any]) -> None:
    layers = [nn.Linear(4, 4) for _ in range(2)]
    step = torch.compile(lambda layer, x: torch.relu(layer(x)), backend="lepton")
    x = torch.randn(2, 4)
    for layer in (*layers, *layers):
        close(step(layer, x), torch.relu(layer(x)))
    assert len(made) >= 2


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.count += 1
        return x + self.count


@pytest.mark.parametrize(
    "case",
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(1.0)).train(), "random numbers"),
        (Counter, "in place"),
        (lambda: torch.cumprod, "export"),
    ],
    ids=["dropout", "mutation", "unknown operator"],
)
def test_falls_back_with_one_warning(case: Any, made: list[Any]) -> None:
    if case[1] == "export":
        function: Any = lambda x: torch.linalg.eigvals(x @ x.T)  # noqa: E731
        reference: Any = function
    else:
        function, reference = case[0](), case[0]()
        reference.load_state_dict(function.state_dict())
    compiled = torch.compile(function, backend="lepton")
    x = torch.randn(3, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            torch.testing.assert_close(compiled(x), reference(x))
    ours = [str(w.message) for w in caught if "runs in PyTorch" in str(w.message)]
    assert len(ours) == 1
    assert case[1] in ours[0]
    assert not made


def test_gradients_are_left_to_pytorch(made: list[Any]) -> None:
    module = network()
    compiled = torch.compile(module, backend="lepton")
    x = torch.randn(3, 4)
    with torch.enable_grad(), pytest.warns(RuntimeWarning, match="no_grad"):
        compiled(x).sum().backward()
    assert module[0].weight.grad is not None
    assert not made
    close(compiled(x), module(x))
    assert len(made) == 1


def test_convolutions_in_inference_mode(made: list[Any]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 2, 1))
    module.eval()
    compiled = torch.compile(module, backend="lepton")
    x = torch.randn(2, 3, 9, 9).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        close(compiled(x), module(x))
    assert len(made) == 1


def test_attention_draws_no_random_numbers(made: list[Any]) -> None:
    class Attend(nn.Module):
        def forward(self, x: Any) -> Any:
            return nn.functional.scaled_dot_product_attention(x, x + 1, x - 1, is_causal=True)

    module = Attend().eval()
    x = torch.randn(2, 3, 5, 8)
    close(torch.compile(module, backend="lepton")(x), module(x))
    assert len(made) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bert_of_real_size(made: list[Any]) -> None:
    pytest.importorskip("transformers")
    from acceptance.torch_models import CASES, enlivened

    case = CASES["bert"](True)
    module = enlivened(case.module, case.inputs)
    compiled = torch.compile(module, backend="lepton")
    want = module(*case.inputs).last_hidden_state
    got = compiled(*case.inputs).last_hidden_state
    assert float((got - want).abs().max()) <= 1e-3 * float(want.std())
    assert made
    assert not any(step.is_host for session in made for step in session.explain())
