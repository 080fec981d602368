"""Networks from torch and transformers, and every way ONNX Runtime quantises them.

A name is an architecture in a small size, or with "/full" in its published one.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnxruntime import quantization
from onnxruntime.quantization import QuantFormat, QuantType

torch = pytest.importorskip("torch")
nn = torch.nn

Array = npt.NDArray[Any]
TYPES = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}


class _Head(nn.Module):  # type: ignore[misc, name-defined]
    """The first output of a transformer, from token ids alone."""

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__()
        self.model = model
        self.options = options

    def forward(self, ids: Any) -> Any:
        return self.model(ids, **self.options)[0]


def _cnn() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def _mlp() -> Any:
    layers = [nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*layers)


class _Lstm(nn.Module):  # type: ignore[misc, name-defined]
    """Two layers, and a linear one on every step."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, 2, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(x)[0])


def _resnet(full: bool) -> Any:
    hf = pytest.importorskip("transformers")
    small = {"embedding_size": 16, "hidden_sizes": [32, 64, 64, 96], "depths": [1, 2, 1, 1]}
    config = hf.ResNetConfig(**({} if full else small))
    return _calibrated(_Head(hf.ResNetForImageClassification(config)), 224 if full else 32)


def _mobilenet(full: bool) -> Any:
    hf = pytest.importorskip("transformers")
    config = hf.MobileNetV2Config(**({} if full else {"depth_multiplier": 0.35}))
    return _calibrated(_Head(hf.MobileNetV2ForImageClassification(config)), 224 if full else 32)


def _calibrated(model: Any, size: int) -> Any:
    """Gives batch norms the statistics of noise: with their initial ones deep layers vanish."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, 3, size, size))
    return model


def _bert(full: bool) -> Any:
    hf = pytest.importorskip("transformers")
    small = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
    }
    return _Head(hf.BertModel(hf.BertConfig(**({} if full else small))))


def _gpt2(full: bool) -> Any:
    hf = pytest.importorskip("transformers")
    small = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return _Head(hf.GPT2LMHeadModel(hf.GPT2Config(**({} if full else small))), use_cache=False)


_MAKERS: dict[str, Callable[[bool], Any]] = {
    "cnn": lambda full: _cnn(),
    "mlp": lambda full: _mlp(),
    "lstm": lambda full: _Lstm(256, 256) if full else _Lstm(24, 40),
    "resnet": _resnet,
    "mobilenet": _mobilenet,
    "bert": _bert,
    "gpt2": _gpt2,
}
_SHAPES = {
    "cnn": (2, 3, 16, 16),
    "mlp": (4, 32),
    "lstm": (1, 12, 24),
    "lstm/full": (1, 64, 256),
    "resnet": (2, 3, 32, 32),
    "resnet/full": (1, 3, 224, 224),
    "mobilenet": (2, 3, 32, 32),
    "mobilenet/full": (1, 3, 224, 224),
    "bert": (2, 8),
    "bert/full": (1, 32),
    "gpt2": (2, 8),
    "gpt2/full": (1, 32),
}


def is_language(name: str) -> bool:
    return name.split("/")[0] in {"bert", "gpt2"}


def batches(name: str, count: int = 3) -> list[Array]:
    rng = np.random.default_rng(len(name))
    if is_language(name):
        return [rng.integers(0, 100, _SHAPES[name]) for _ in range(count)]
    return [rng.normal(size=_SHAPES[name]).astype(np.float32) for _ in range(count)]


@functools.cache
def float_model(name: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    kind, _, size = name.partition("/")
    example = torch.from_numpy(batches(name, 1)[0])
    module = _MAKERS[kind](size == "full").eval()
    program = torch.onnx.export(module, (example,), dynamo=True, opset_version=20, verbose=False)
    model: onnx.ModelProto = program.model_proto
    del model.graph.value_info[:]  # some of it is stale once a quantiser has turned weights
    return model


def feeds(name: str) -> dict[str, Array]:
    return {float_model(name).graph.input[0].name: batches(name, 1)[0]}


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        key = float_model(name).graph.input[0].name
        self.left: Iterator[dict[str, Array]] = iter([{key: x} for x in batches(name)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.left, None)


@functools.cache
def static(
    name: str, form: str, activation: str, weight: str, per_channel: bool
) -> onnx.ModelProto:
    """quantize_static; form: "QDQ" or "QOperator"."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.onnx")
        quantization.quantize_static(
            copy.deepcopy(float_model(name)),  # the quantiser works in place
            path,
            _Calibration(name),
            quant_format=QuantFormat[form],
            per_channel=per_channel,
            activation_type=TYPES[activation],
            weight_type=TYPES[weight],
        )
        return onnx.load(path)


@functools.cache
def dynamic(name: str, weight: str, per_channel: bool) -> onnx.ModelProto:
    """quantize_dynamic."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.onnx")
        quantization.quantize_dynamic(
            copy.deepcopy(float_model(name)),
            path,
            per_channel=per_channel,
            weight_type=TYPES[weight],
        )
        return onnx.load(path)
