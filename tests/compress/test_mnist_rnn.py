"""An LSTM that reads MNIST row by row keeps its accuracy with int8 weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lepton_rt

DATA = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def trained_lstm(images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Any:
    """An LSTM over rows [batch, 28, 28] of digits, and a linear layer on its last state."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(28, 96, batch_first=True)
            self.head = nn.Linear(96, 10)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            y, _ = self.lstm(rows)
            return self.head(y[:, -1])

    model, batch, epochs = Rows(), 64, 6
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimiser = torch.optim.Adam(model.parameters())
    rounds = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=rounds)
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


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder ../shared/data/mnist")
def test_accuracy_before_and_after(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from lepton_rt.cli.demo.digits import load_digits

    digits = load_digits(DATA, seed=0)
    model = trained_lstm(digits.train_images[:, 0], digits.train_labels)
    example = (torch.zeros(2, 28, 28),)
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model, example, tmp_path / "rows.onnx", dynamo=True, dynamic_shapes=({0: batch},),
        verbose=False,
    )  # fmt: skip

    def accuracy(session: lepton_rt.Session) -> float:
        assert not any(step.is_host for step in session.explain())
        answers = session.run(digits.test_images[:, 0]).argmax(1)
        return float(np.mean(answers == digits.test_labels))

    integers = lepton_rt.Session(lepton_rt.quantize(tmp_path / "rows.onnx", mode="dynamic").graph)
    assert "lepton.DynamicQuantizeLSTM" in {step.op for step in integers.explain()}
    before, after = accuracy(lepton_rt.Session(tmp_path / "rows.onnx")), accuracy(integers)
    print(f"float32 {before:.4f}, int8 weights {after:.4f}")
    assert before >= 0.96
    assert abs(before - after) <= 0.005
