"""Derives the shapes of products and convolutions from the networks themselves.

    PYTHONPATH=benchmarks python benchmarks/shapes/derive.py

Rewrites conv.txt, and in gemm.txt what follows the line "# derived". Needs torch and transformers.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from race import networks
from transformers.pytorch_utils import Conv1D

HERE = Path(__file__).parent
CONVOLUTIONAL = ("resnet50", "mobilenet_v2", "efficientnet_b0", "mobilenet_v3_large")
PRODUCTS = ("bert_base", "vit_b16", "gpt2", "lstm")

# MobileNetV3-Large, table 1 of Howard et al., "Searching for MobileNetV3": size of the input,
# channels in, kernel, expanded, out, whether it squeezes and excites, stride.
MOBILENET_V3_LARGE = [
    (112, 16, 3, 16, 16, False, 1),
    (112, 16, 3, 64, 24, False, 2),
    (56, 24, 3, 72, 24, False, 1),
    (56, 24, 5, 72, 40, True, 2),
    (28, 40, 5, 120, 40, True, 1),
    (28, 40, 5, 120, 40, True, 1),
    (28, 40, 3, 240, 80, False, 2),
    (14, 80, 3, 200, 80, False, 1),
    (14, 80, 3, 184, 80, False, 1),
    (14, 80, 3, 184, 80, False, 1),
    (14, 80, 3, 480, 112, True, 1),
    (14, 112, 3, 672, 112, True, 1),
    (14, 112, 5, 672, 160, True, 2),
    (7, 160, 5, 960, 160, True, 1),
    (7, 160, 5, 960, 160, True, 1),
]

Conv = tuple[int, int, int, int, int, int]
"""Height = width of the input, channels in, out, kernel, stride, group."""


def mobilenet_v3_large() -> Counter[Conv]:
    found: Counter[Conv] = Counter({(224, 3, 16, 3, 2, 1): 1})
    for size, into, kernel, middle, out, squeezes, stride in MOBILENET_V3_LARGE:
        if middle != into:
            found[size, into, middle, 1, 1, 1] += 1
        found[size, middle, middle, kernel, stride, middle] += 1
        if squeezes:
            reduced = (middle // 4 + 7) // 8 * 8
            found[1, middle, reduced, 1, 1, 1] += 1
            found[1, reduced, middle, 1, 1, 1] += 1
        found[size // stride, middle, out, 1, 1, 1] += 1
    found[7, 160, 960, 1, 1, 1] += 1
    return found


def efficientnet_b0() -> Any:
    import transformers

    config = transformers.EfficientNetConfig(
        image_size=224, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280
    )
    return transformers.EfficientNetForImageClassification(config).eval()


def layers_of(module: Any, x: torch.Tensor) -> tuple[Counter[Conv], Counter[tuple[int, int, int]]]:
    """Every convolution and every product (m, k, n) that a run of the module executes."""
    convs: Counter[Conv] = Counter()
    products: Counter[tuple[int, int, int]] = Counter()

    def saw(layer: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        given = inputs[0]
        if isinstance(layer, torch.nn.Conv2d):
            kernel, stride = layer.kernel_size[0], layer.stride[0]
            size = output.shape[2] * stride  # the input's may have been padded before
            into, out = layer.in_channels, layer.out_channels
            convs[size, into, out, kernel, stride, layer.groups] += 1
        elif isinstance(layer, torch.nn.LSTM):
            rows = given.shape[0] * given.shape[1]
            width = 4 * layer.hidden_size
            for depth in [layer.input_size] + [layer.hidden_size] * (layer.num_layers - 1):
                products[rows, depth, width] += 1  # all steps at once
                products[given.shape[0], layer.hidden_size, width] += given.shape[1]  # each step
        else:
            columns = output.shape[-1]
            products[given.numel() // given.shape[-1], given.shape[-1], columns] += 1

    kinds = (torch.nn.Conv2d, torch.nn.LSTM, torch.nn.Linear, Conv1D)
    hooks = [
        layer.register_forward_hook(saw)
        for name, layer in module.named_modules()
        if isinstance(layer, kinds) and "pooler" not in name  # BERT's is not raced
    ]
    with torch.inference_mode():
        module(x)
    for hook in hooks:
        hook.remove()
    return convs, products


def write_convolutions() -> None:
    lines = [
        "# Convolution layers at batch 1: network, input height = width, in channels, out channels,"
        " kernel, stride,",
        "# group, how often the network has the layer. Made by derive.py.",
    ]
    for name in CONVOLUTIONAL:
        if name == "mobilenet_v3_large":
            convs = mobilenet_v3_large()
        elif name == "efficientnet_b0":
            convs, _ = layers_of(efficientnet_b0(), torch.randn(1, 3, 224, 224))
        else:
            convs, _ = layers_of(networks.module(name), torch.randn(1, 3, 224, 224))
        lines += [f"{name} {' '.join(map(str, conv))} {count}" for conv, count in convs.items()]
    (HERE / "conv.txt").write_text("\n".join(lines) + "\n")


def write_products() -> None:
    path = HERE / "gemm.txt"
    chosen, _, _ = path.read_text().partition("# derived")
    known = {tuple(line.split()[:3]) for line in chosen.splitlines()}
    lines = ["# derived from the networks by derive.py, batch 1"]
    for name in PRODUCTS:
        network = networks.NETWORKS[name]
        x = torch.from_numpy(network.samples(1, seed=0))
        _, products = layers_of(networks.module(name), x)
        for (m, k, n), count in products.items():
            if (str(m), str(k), str(n)) not in known:
                lines.append(f"{f'{m} {k} {n}':17} {network.title}, {count} times")
    path.write_text(chosen + "\n".join(lines) + "\n")


if __name__ == "__main__":
    write_convolutions()
    write_products()
