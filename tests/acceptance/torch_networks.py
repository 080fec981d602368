"""Two networks written with torch.nn alone: a U-Net and a DenseNet, of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def _double_conv(inputs: int, outputs: int) -> Any:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(4, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.InstanceNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )


class UNet(nn.Module):
    """Down by max pooling; up by transposed convolution, the last time by interpolation.

    widths: channels per level, from the top; sizes are multiples of 2^(levels - 1).
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(_double_conv(a, b) for a, b in pairwise((3, *widths)))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(below, here, 2, 2) for here, below in pairwise(widths[1:])
        )
        self.join = nn.ModuleList(_double_conv(2 * here, here) for here in widths[1:-1])
        self.join_top = _double_conv(widths[0] + widths[1], widths[0])
        self.out = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Any) -> Any:
        skips = []
        for level in self.down:
            x = level(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        skips.pop()
        for up, join in zip(reversed(self.up), reversed(self.join)):
            x = join(torch.cat([up(x), skips.pop()], 1))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.out(self.join_top(torch.cat([x, skips.pop()], 1))))


class DenseNet(nn.Module):
    """Dense blocks with bottlenecks, halving transitions between them, a classifier."""

    def __init__(self, growth: int, blocks: Sequence[int]) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for number, layers in enumerate(blocks):
            self.blocks.append(
                nn.ModuleList(self._layer(channels + i * growth, growth) for i in range(layers))
            )
            channels += layers * growth
            last = number == len(blocks) - 1
            self.transitions.append(self._end(channels) if last else self._transition(channels))
            channels //= 1 if last else 2
        self.classifier = nn.Linear(channels, 10)

    def _layer(self, channels: int, growth: int) -> Any:
        return nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def _transition(self, channels: int) -> Any:
        conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv, nn.AvgPool2d(2))

    def _end(self, channels: int) -> Any:
        return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions):
            for layer in block:
                x = torch.cat([x, layer(x)], 1)
            x = transition(x)
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
