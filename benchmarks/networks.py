"""Networks made by script from fixed seeds, for benchmarks and tests (torch, transformers)."""

from __future__ import annotations

import functools
import io
from typing import Any

NAMES = ["mobilenet_v2", "resnet50"]


@functools.cache
def cnn(name: str) -> bytes:
    """A CNN of the transformers package with random weights, as ONNX bytes.

    Input [batch, 3, 224, 224] float32, output [batch, 1000]. Batch norms carry the statistics of
    random inputs, so that activations keep their scale through the network.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    if name == "mobilenet_v2":
        config = transformers.MobileNetV2Config(num_labels=1000)
        module = transformers.MobileNetV2ForImageClassification(config)
    elif name == "resnet50":
        config = transformers.ResNetConfig(num_labels=1000)
        module = transformers.ResNetForImageClassification(config)
    else:
        raise ValueError(f"unknown network {name}; known: {', '.join(NAMES)}")
    module.train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.5
    with torch.no_grad():
        for _ in range(4):
            module(torch.randn(8, 3, 224, 224))
    return export(module.eval(), torch.randn(2, 3, 224, 224))


def export(module: Any, example: Any) -> bytes:
    """ONNX bytes of a torch module by PyTorch's own exporter, its first dimension dynamic."""
    import onnx
    import torch

    class Plain(torch.nn.Module):
        """Gives the exporter a plain tensor output."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Any) -> Any:
            made = self.inner(x)
            return getattr(made, "logits", made)

    program = torch.onnx.export(
        Plain().eval(),
        (example,),
        dynamo=True,
        opset_version=23,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    stream = io.BytesIO()
    onnx.save(program.model_proto, stream)
    return stream.getvalue()
