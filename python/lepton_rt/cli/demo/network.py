"""The demo's network and its training, with PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lepton_rt.cli.demo.digits import SIDE, Images, Labels

BATCH = 128
_SHIFT = 2  # pixels, either way, at random


class Residual(nn.Module):
    """x + two convolutions of x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class DigitNet(nn.Module):
    """About 3 million multiplications an image: convolutions, pooling, a residual, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *convolution(1, 16, kernel=5, stride=2),
            *convolution(16, 32),
            nn.MaxPool2d(2),
            Residual(32),
            *convolution(32, 64),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classify = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))  # type: ignore[no-any-return]


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution, batch norm, Relu."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def train(
    images: Images, labels: Labels, epochs: int, seed: int, report: Callable[[int, float], None]
) -> nn.Module:
    """Trains a DigitNet on shifted copies of the images; calls report(epoch, mean loss)."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # the layers are too small to share, and results stay the same
    model: Any = DigitNet()  # torch's stubs do not know Module.to(memory_format=…)
    model.to(memory_format=torch.channels_last)
    steps = epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    padded = nn.functional.pad(torch.from_numpy(images), [_SHIFT] * 4)
    targets = torch.from_numpy(labels)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.split(torch.randperm(len(images)), BATCH):
            loss = nn.functional.cross_entropy(model(_shifted(padded[chosen])), targets[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        report(epoch + 1, total / len(images))
    trained: nn.Module = model.to(memory_format=torch.contiguous_format).eval()
    return trained


def _shifted(padded: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to _SHIFT pixels; one shift for each eighth of it."""
    parts = []
    for part in padded.chunk(8):
        top, left = (int(n) for n in torch.randint(0, 2 * _SHIFT + 1, (2,)))
        parts.append(part[:, :, top : top + SIDE, left : left + SIDE])
    return torch.cat(parts)


def export(model: nn.Module, path: Path, opset: int = 18) -> None:
    """Writes the network as ONNX with a free batch size, by PyTorch's own exporter."""
    example = torch.zeros(2, 1, SIDE, SIDE)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            model,
            (example,),
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
        program.save(str(path))


def set_threads(threads: int) -> None:
    """Bounds the threads PyTorch computes with."""
    torch.set_num_threads(threads)


def torch_runner(model: nn.Module) -> Callable[[Images], Any]:
    """A function from images to scores, as numpy arrays."""

    def run(images: Images) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return run


def parameter_bytes(model: nn.Module) -> int:
    return sum(p.nbytes for p in [*model.parameters(), *model.buffers()])
