"""An LSTM and a Transformer that read MNIST row by row keep their accuracy in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.cli.demo.digits import Digits, load_digits

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn
DATA = Path(__file__).parents[3] / "shared" / "data" / "mnist"
WIDTH = 64


class RowsLstm(nn.Module):  # type: ignore[misc, name-defined]
    """An LSTM over rows [batch, 28, 28] of digits, and a linear layer on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 96, batch_first=True)
        self.head = nn.Linear(96, 10)

    def forward(self, rows: Any) -> Any:
        return self.head(self.lstm(rows)[0][:, -1])


class Block(nn.Module):  # type: ignore[misc, name-defined]
    """Attention over all rows, then a feed-forward network; normalised before each."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Any) -> Any:
        parts = self.qkv(self.norms[0](x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.feed(self.norms[1](x))


class RowsTransformer(nn.Module):  # type: ignore[misc, name-defined]
    """Two blocks over rows [batch, 28, 28] of digits, and a linear layer on all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(28, WIDTH)
        self.position = nn.Parameter(0.1 * torch.randn(28, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(28 * WIDTH, 10)

    def forward(self, rows: Any) -> Any:
        x = self.blocks(self.embed(rows) + self.position)
        return self.head(self.norm(x).flatten(1))


def trained(make: Callable[[], Any], digits: Digits, epochs: int, rate: float) -> Any:
    torch.manual_seed(0)
    model, batch = make(), 64
    x, y = torch.from_numpy(digits.train_images[:, 0]), torch.from_numpy(digits.train_labels)
    optimiser = torch.optim.Adam(model.parameters())
    rounds = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=rounds)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(len(x) // batch):
            rows = order[i * batch : (i + 1) * batch]
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return model.eval()


def saved(model: Any, path: Path) -> Path:
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model, (torch.zeros(2, 28, 28),), path, dynamo=True, dynamic_shapes=({0: batch},),
        verbose=False,
    )  # fmt: skip
    return path


def accuracy(session: lepton_rt.Session, digits: Digits) -> float:
    assert not any(step.is_host for step in session.explain())
    answers = session.run(digits.test_images[:, 0]).argmax(1)
    return float(np.mean(answers == digits.test_labels))


@pytest.fixture(scope="module")
def digits() -> Digits:
    if not DATA.is_dir():
        pytest.skip("needs the folder ../shared/data/mnist")
    return load_digits(DATA, seed=0)


def test_lstm(digits: Digits, tmp_path: Path) -> None:
    path = saved(trained(RowsLstm, digits, 6, 6e-3), tmp_path / "rows.onnx")
    integers = lepton_rt.Session(lepton_rt.quantize(path, mode="dynamic").graph)
    assert "lepton.DynamicQuantizeLSTM" in {step.op for step in integers.explain()}
    before, after = accuracy(lepton_rt.Session(path), digits), accuracy(integers, digits)
    assert before >= 0.96
    assert abs(before - after) <= 0.005


def test_transformer(digits: Digits, tmp_path: Path) -> None:
    path = saved(trained(RowsTransformer, digits, 4, 3e-3), tmp_path / "rows.onnx")
    images = digits.train_images[:, 0]
    made = lepton_rt.quantize(path, [images[i : i + 64] for i in range(0, 512, 64)], progress=False)
    integers = lepton_rt.Session(made.graph)
    layers = [step.op for step in integers.explain() if "MatMul" in step.op]
    assert layers
    assert all(op.startswith("lepton.QLinearMatMul") for op in layers)
    before, after = accuracy(lepton_rt.Session(path), digits), accuracy(integers, digits)
    assert before >= 0.96
    assert abs(before - after) <= 0.005
