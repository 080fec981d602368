"""LSTM, GRU and RNN against equations in numpy, torch and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import Error, UnsupportedError
from lepton_rt.graph.ir import Constant, Graph, Node, Value
from lepton_rt.lower import LowerContext
from lepton_rt.lowering.rnn import RULES
from rnn_oracle import GATES, recurrent

Array = npt.NDArray[Any]
OPS = ("LSTM", "GRU", "RNN")
F32 = np.float32
WEIGHTS = (1, 2, 9, 11)


def operands(
    rng: np.random.Generator,
    op: str,
    steps: int,
    batch: int,
    size: int,
    hidden: int,
    attrs: dict[str, Any] | None = None,
    omit: str = "",
) -> list[Array | None]:
    """X, W, R, B, sequence_lens, initial_h, initial_c, P without those whose letter is in omit.

    Letters: b biases, l lengths, h and c initial state, p peepholes.
    """
    attrs = attrs or {}
    d = 2 if attrs.get("direction") == "bidirectional" else 1
    rows = GATES[op] * hidden
    first = (batch, steps) if attrs.get("layout") else (steps, batch)
    state = (batch, d, hidden) if attrs.get("layout") else (d, batch, hidden)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (scale * rng.standard_normal(shape)).astype(F32)

    made: list[Array | None] = [
        normal(*first, size),
        normal(d, rows, size, scale=size**-0.5),
        normal(d, rows, hidden, scale=hidden**-0.5),
        None if "b" in omit else normal(d, 2 * rows),
        None if "l" in omit else rng.integers(0, steps + 1, batch).astype(np.int32),
        None if "h" in omit else normal(*state),
    ]
    if op == "LSTM":
        made += [
            None if "c" in omit else normal(*state),
            None if "p" in omit else normal(d, 3 * hidden),
        ]
    return made


def outputs_of(op: str) -> tuple[str, ...]:
    return ("float32",) * (3 if op == "LSTM" else 2)


def lowered(
    key: str, inputs: list[Array | None], attrs: dict[str, Any], isa: str
) -> tuple[list[Array | None], dict[str, Any], str]:
    """Inputs, attributes and kernel of the step that the lowering rule makes of a node."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    graph = Graph(
        inputs={n: Value(a.dtype, a.shape) for n, a in zip(names, inputs) if a is not None},
        constants={n: Constant.of(inputs[i]) for i, n in enumerate(names) if n and i in WEIGHTS},
    )
    domain, op = key.rpartition(".")[::2]
    context = LowerContext(graph, isa, names=set(names))
    step = RULES[key](Node(op, names, ["y"], dict(attrs), domain), context)
    packed = [None if name == "" else value for name, value in zip(step.inputs, inputs)]
    for i in (1, 2):
        packed[i] = context.added[step.inputs[i]]
    return packed, step.attrs, step.kernel


def run(
    op: str, inputs: list[Array | None], attrs: dict[str, Any], isa: str, threads: int = 1
) -> list[Array]:
    """The outputs with packed weights, which are those with weights known at run time."""
    plain = {k: ";".join(v) if k == "activations" else v for k, v in attrs.items()}
    outputs = outputs_of(op)
    late = run_op(op, inputs, plain, outputs=outputs, isa=isa, threads=threads)
    packed, attributes, kernel = lowered(op, inputs, attrs, isa)
    early = run_op(
        op, packed, attributes, constants=(1, 2), outputs=outputs, kernel=kernel, isa=isa,
        threads=threads,
    )  # fmt: skip
    for a, b in zip(early, late):
        np.testing.assert_array_equal(a, b)
    return early


def check(op: str, inputs: list[Array | None], attrs: dict[str, Any], isa: str, **kw: Any) -> None:
    want = recurrent(op, *inputs, **{k: v for k, v in attrs.items() if k != "hidden_size"})
    for got, expected in zip(run(op, inputs, attrs, isa, **kw), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("op", OPS)
def test_all_operands(
    op: str, layout: int, direction: str, isa: str, rng: np.random.Generator
) -> None:
    attrs = {"direction": direction, "layout": layout, "hidden_size": 19}
    check(op, operands(rng, op, 7, 5, 11, 19, attrs), attrs, isa)


@pytest.mark.parametrize("omit", ["b", "l", "h", "c", "p", "blhcp"])
@pytest.mark.parametrize("op", OPS)
def test_omitted_operands(op: str, omit: str, isa: str, rng: np.random.Generator) -> None:
    attrs = {"direction": "bidirectional"}
    check(op, operands(rng, op, 4, 3, 6, 9, attrs, omit), attrs, isa)


@pytest.mark.parametrize(
    ("steps", "batch", "size", "hidden"),
    [(1, 1, 1, 1), (0, 3, 4, 5), (3, 0, 4, 5), (2, 13, 3, 8), (70, 2, 33, 65), (300, 1, 5, 16)],
)
@pytest.mark.parametrize("op", OPS)
def test_sizes(
    op: str, steps: int, batch: int, size: int, hidden: int, isa: str, rng: np.random.Generator
) -> None:
    for direction in ("forward", "reverse"):
        for omit in ("", "l"):
            attrs = {"direction": direction}
            inputs = operands(rng, op, steps, batch, size, hidden, attrs, omit)
            check(op, inputs, attrs, isa)


@pytest.mark.parametrize("linear_before_reset", [0, 1])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_gru_options(
    linear_before_reset: int, clip: float, isa: str, rng: np.random.Generator
) -> None:
    attrs: dict[str, Any] = {"linear_before_reset": linear_before_reset}
    attrs |= {"clip": clip} if clip else {}
    check("GRU", operands(rng, "GRU", 6, 3, 8, 12), attrs, isa)


@pytest.mark.parametrize("omit", ["", "p"])
@pytest.mark.parametrize("input_forget", [0, 1])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_lstm_options(
    omit: str, input_forget: int, clip: float, isa: str, rng: np.random.Generator
) -> None:
    attrs: dict[str, Any] = {"input_forget": input_forget}
    attrs |= {"clip": clip} if clip else {}
    check("LSTM", operands(rng, "LSTM", 6, 3, 8, 12, omit=omit), attrs, isa)


@pytest.mark.parametrize("hidden", [1, 8, 15, 17, 40])
def test_lstm_extremes(hidden: int, isa: str, rng: np.random.Generator) -> None:
    """Gates far beyond saturation, tiny ones, a huge state, and NaN in one unit alone."""
    inputs = operands(rng, "LSTM", 1, 3, 4, hidden, omit="lp")
    bias = rng.choice([-1e30, -200, -50, -1e-6, 0, 1e-7, 50, 200, 1e30], (1, 8 * hidden))
    inputs[3] = bias.astype(F32)
    inputs[3][:, 4 * hidden :] = 0
    for i in (0, 5):
        inputs[i] = np.zeros_like(inputs[i])
    state = rng.standard_normal(inputs[6].shape) * rng.choice(  # type: ignore[union-attr]
        [1e-30, 1e-3, 1, 1e15],
        inputs[6].shape,  # type: ignore[union-attr]
    )
    state[0, 1, hidden // 2] = np.nan
    inputs[6] = state.astype(F32)
    with np.errstate(over="ignore"):
        want = recurrent("LSTM", *inputs)
    for got, expected in zip(run("LSTM", inputs, {}, isa), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-17)
        assert np.isnan(got).sum() == 1


@pytest.mark.parametrize(
    "names",
    [
        ["Relu", "Softsign"],
        ["HardSigmoid", "Elu"],
        ["Softplus", "LeakyRelu"],
        ["ThresholdedRelu", "Affine"],
        ["Affine", "ScaledTanh"],
    ],
)
def test_activations(names: list[str], isa: str, rng: np.random.Generator) -> None:
    """Constants go in order to the functions that have them; both directions have their own."""
    attrs = {
        "activations": [*names, *names[::-1]],
        "activation_alpha": [0.3, 0.2],
        "activation_beta": [0.4],
        "direction": "bidirectional",
    }
    check("GRU", operands(rng, "GRU", 4, 2, 5, 10, attrs), attrs, isa)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("batch", [1, 14])
@pytest.mark.parametrize("op", OPS)
def test_threads_change_no_bit(
    op: str, batch: int, direction: str, threads: int, isa: str, rng: np.random.Generator
) -> None:
    attrs = {"direction": direction}
    inputs = operands(rng, op, 9, batch, 40, 130, attrs)
    for a, b in zip(run(op, inputs, attrs, isa), run(op, inputs, attrs, isa, threads=threads)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, True), (False, False, True)]
)
def test_omitted_outputs(wanted: tuple[bool, ...], isa: str, rng: np.random.Generator) -> None:
    from lepton_rt.plan import Plan, Step

    inputs = operands(rng, "LSTM", 5, 3, 4, 6)
    names = [f"x{i}" for i in range(8)]
    outputs = [f"y{i}" if given else "" for i, given in enumerate(wanted)]
    made = [name for name in outputs if name]
    plan = Plan(
        isa=isa,
        inputs={
            n: Value(a.dtype, (None,) * a.ndim) for n, a in zip(names, inputs) if a is not None
        },
        outputs=made,
        steps=[Step("LSTM", names, outputs, {}, "", "LSTM")],
        constants={},
        dtypes={name: np.dtype(F32) for name in made},
    )
    got = _core.Executor(*plan.encode(), threads=1).run(inputs)
    want = [y for y, given in zip(recurrent("LSTM", *inputs), wanted) if given]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("op", OPS)
def test_against_torch(op: str, bidirectional: bool, isa: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    layer = getattr(torch.nn, op)(10, 17, bidirectional=bidirectional)
    # ONNX's order of gates in torch's.
    order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}[op]

    def arranged(parameter: Any) -> Array:
        parts = np.split(parameter.detach().numpy(), GATES[op])
        return np.concatenate([parts[i] for i in order])

    ends = ["l0", "l0_reverse"] if bidirectional else ["l0"]

    def stacked(kind: str) -> Array:
        return np.stack([arranged(getattr(layer, f"{kind}_{end}")) for end in ends])

    b = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    x = rng.standard_normal((6, 4, 10)).astype(F32)
    attrs: dict[str, Any] = {"direction": "bidirectional" if bidirectional else "forward"}
    if op == "GRU":
        attrs["linear_before_reset"] = 1
    got = run(op, [x, stacked("weight_ih"), stacked("weight_hh"), b], attrs, isa)
    with torch.no_grad():
        y, state = layer(torch.from_numpy(x))
    want = y.numpy().reshape(6, 4, len(ends), 17).swapaxes(1, 2)
    np.testing.assert_allclose(got[0], want, rtol=1e-4, atol=1e-5)
    for a, s in zip(got[1:], state if op == "LSTM" else [state]):
        np.testing.assert_allclose(a, s.numpy(), rtol=1e-4, atol=1e-5)


def onnx_runtime(op: str, inputs: list[Array | None], attrs: dict[str, Any]) -> list[Array]:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    feeds = {n: v for n, v in zip(names, inputs) if v is not None}
    outputs = [f"y{i}" for i in range(len(outputs_of(op)))]
    node = onnx.helper.make_node(op, names, outputs, hidden_size=inputs[2].shape[2], **attrs)
    typed = onnx.helper.make_tensor_value_info
    code = onnx.helper.np_dtype_to_tensor_dtype
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [typed(n, code(v.dtype), v.shape) for n, v in feeds.items()],
        [typed(n, 1, None) for n in outputs],
    )
    opset = [onnx.helper.make_opsetid("", 14)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), None)
    return list(session.run(None, feeds))


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("LSTM", {}),
        ("LSTM", {"direction": "reverse", "input_forget": 1}),
        ("LSTM", {"direction": "bidirectional", "clip": 0.7}),
        ("GRU", {"direction": "bidirectional"}),
        ("GRU", {"direction": "reverse", "linear_before_reset": 1, "clip": 0.7}),
        ("RNN", {"direction": "bidirectional"}),
        (
            "RNN",
            {"activations": ["ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [0.6]},
        ),
    ],
)
def test_against_onnx_runtime(
    op: str, attrs: dict[str, Any], isa: str, rng: np.random.Generator
) -> None:
    inputs = operands(rng, op, 6, 4, 7, 16, attrs)
    inputs[4] = np.array([6, 1, 4, 3], np.int32)
    want = onnx_runtime(op, inputs, attrs)
    for a, b in zip(run(op, inputs, attrs, isa), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "change",
    [
        {0: (6, 3)},
        {0: (6, 3, 5)},
        {1: (1, 40, 6)},
        {2: (1, 48, 11)},
        {3: (1, 95)},
        {4: (2,)},
        {5: (1, 3, 11)},
        {6: (2, 3, 12)},
        {7: (1, 35)},
    ],
)
def test_operands_that_do_not_fit(change: dict[int, tuple[int, ...]], rng: Any) -> None:
    inputs = operands(rng, "LSTM", 6, 3, 6, 12)
    for i, shape in change.items():
        inputs[i] = np.zeros(shape, inputs[i].dtype)  # type: ignore[union-attr]
    with pytest.raises(Error):
        run_op("LSTM", inputs, {}, outputs=outputs_of("LSTM"))


@pytest.mark.parametrize("lengths", [[7, 1, 1], [-1, 1, 1], [1, 1, 2**31 - 1]])
def test_lengths_beyond_the_sequence(lengths: list[int], rng: np.random.Generator) -> None:
    inputs = operands(rng, "GRU", 6, 3, 6, 12)
    inputs[4] = np.array(lengths, np.int32)
    with pytest.raises(Error, match="sequence_lens"):
        run_op("GRU", inputs, {}, outputs=outputs_of("GRU"))


@pytest.mark.parametrize(
    "attrs",
    [
        {"direction": "sideways"},
        {"hidden_size": -1},
        {"hidden_size": 13},
        {"hidden_size": 2**62},
        {"layout": 2},
        {"clip": -1.0},
        {"activations": "Sigmoid"},
        {"activations": "Sigmoid;Tanh;Tanh;Tanh"},
        {"packed": 1},
    ],
)
def test_attributes_that_make_no_sense(attrs: dict[str, Any], rng: np.random.Generator) -> None:
    inputs = operands(rng, "LSTM", 6, 3, 6, 12)
    with pytest.raises(Error):
        run_op("LSTM", inputs, attrs, outputs=outputs_of("LSTM"))


def test_unknown_activation_is_unsupported(rng: np.random.Generator) -> None:
    inputs = operands(rng, "RNN", 6, 3, 6, 12)
    with pytest.raises(UnsupportedError, match="Wiggle"):
        run_op("RNN", inputs, {"activations": "Wiggle"}, outputs=outputs_of("RNN"))


def test_packed_weights_of_another_size(rng: np.random.Generator) -> None:
    inputs = operands(rng, "LSTM", 2, 3, 6, 12)
    packed, attrs, kernel = lowered("LSTM", inputs, {}, _core.max_isa())
    for change in ({"input_size": 7}, {"hidden_size": 13}, {"hidden_size": 1 << 24}):
        with pytest.raises(Error):
            run_op(
                "LSTM", packed, {**attrs, **change}, constants=(1, 2), kernel=kernel,
                outputs=outputs_of("LSTM"),
            )  # fmt: skip
