"""Programs in PT2E's quantised form keep their ranges."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
pytest.importorskip("torch.ao.quantization.fx._decomposed")
from torch import fx, nn

import lepton_rt
from acceptance.torch_models import CASES, enlivened

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


def quantised_linears(module: Any, inputs: tuple[Any, ...]) -> Any:
    """PT2E's form of a module's linear layers: uint8 activations, int8 weights by row."""
    made = torch.export.export(module, inputs).module()
    ranges: dict[Any, tuple[float, float]] = {}

    class Watch(fx.Interpreter):  # type: ignore[misc]
        def run_node(self, node: Any) -> Any:
            value = super().run_node(node)
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                ranges[node] = (min(0.0, float(value.min())), float(value.max()))
            return value

    Watch(made).run(*inputs)
    graph = made.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.linear.default:
            with graph.inserting_before(node):
                low, high = ranges[node.args[0]]
                scale = (high - low) / 255
                limits = (scale, round(-low / scale), 0, 255, torch.uint8)
                q = graph.call_function(ops.quantize_per_tensor.default, (node.args[0], *limits))
                x = graph.call_function(ops.dequantize_per_tensor.default, (q, *limits))
                weight = made.get_parameter(node.args[1].target)
                scales = weight.abs().amax(1) / 127
                name = node.args[1].target.replace(".", "_")
                made.register_buffer(name, (weight / scales[:, None]).round().to(torch.int8))
                made.register_buffer(f"{name}_scales", scales)
                made.register_buffer(f"{name}_zeros", torch.zeros(len(scales), dtype=torch.int64))
                parts = [graph.get_attr(name + end) for end in ("", "_scales", "_zeros")]
                w = graph.call_function(
                    ops.dequantize_per_channel.default, (*parts, 0, -127, 127, torch.int8)
                )
            node.args = (x, w, *node.args[2:])
    graph.eliminate_dead_code()
    made.recompile()
    return made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_distilbert_of_real_size() -> None:
    torch.manual_seed(0)
    case = CASES["distilbert"](True)
    module = enlivened(case.module, case.inputs)
    with torch.no_grad():
        quantised = quantised_linears(module, case.inputs)
        session = lepton_rt.Session(quantised, example_inputs=case.inputs)
        want = quantised(*case.inputs).last_hidden_state
        exact = module(*case.inputs).last_hidden_state
    steps = [op for step in session.explain() for op in step.op.split("+")]
    assert steps.count("lepton.QLinearMatMul") == 36  # six layers of six
    assert "lepton.MatMul" not in steps
    got = session(*case.inputs)
    # A value that rounds the other way changes others after it: six layers on, as much as
    # quantising does; but not more, and no further from the truth.
    cost = float((want - exact).std())
    assert cost < 0.05 * float(exact.std())
    assert float((got - want).std()) < cost
    assert float((got - exact).std()) < 1.05 * cost
