"""Programs in PT2E's quantised form keep their ranges."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("torch.ao.quantization.fx._decomposed")
from torch import nn

import lepton_rt

ops = torch.ops.quantized_decomposed


class Quantised(nn.Module):
    """A linear layer as PT2E writes it: 7-bit activations in 8-bit types, a fused ReLU's range."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.register_buffer("weight", torch.randint(-127, 128, (8, 16)).to(torch.int8))
        self.register_buffer("scales", torch.rand(8) * 0.01 + 0.01)
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int64))

    def forward(self, x: Any) -> Any:
        q = ops.quantize_per_tensor(x, 0.02, 10, 0, 127, torch.uint8)
        x = ops.dequantize_per_tensor(q, 0.02, 10, 0, 127, torch.uint8)
        weight = ops.dequantize_per_channel(
            self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8
        )
        y = nn.functional.linear(x, weight)
        q = ops.quantize_per_tensor(y, 0.03, 0, self.low, self.high, torch.int8)
        return ops.dequantize_per_tensor(q, 0.03, 0, self.low, self.high, torch.int8)


@pytest.mark.parametrize("bounds", [(-100, 100), (0, 90), (-128, 127)])
@pytest.mark.parametrize("form", ["program", "graph module"])
def test_ranges_survive(bounds: tuple[int, int], form: str) -> None:
    torch.manual_seed(0)
    module = Quantised(*bounds).eval()
    program = torch.export.export(module, (torch.randn(4, 16),))
    before = str(program.graph)
    if form == "program":
        session = lepton_rt.Session(program)
    else:
        session = lepton_rt.Session(program.module(), example_inputs=torch.randn(4, 16))
    assert str(program.graph) == before
    x = torch.randn(4, 16) * 3
    want = module(x)
    got = session(x)
    assert int(((got - want).abs() > 1e-5).sum()) <= 1  # a tie may round the other way
    assert float((got - want).abs().max()) < 0.031
    assert "QLinearMatMul" in str(session.explain())
