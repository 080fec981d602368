"""The architectures that PyTorch users bring: small configurations with random weights.

What is tested is the shape of the network, not its size. An entry makes the module, its example
inputs, which dimensions are dynamic, and inputs of another size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import nn
from torch.nn import functional as F


@dataclass
class Case:
    module: Any
    inputs: tuple[Any, ...]
    dynamic: dict[str, dict[int, str]]
    others: tuple[Any, ...]


SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def _image(module: Any, name: str = "pixel_values", size: int = 64, free: bool = True) -> Case:
    dims = {0: "n", 2: "h", 3: "w"} if free else {0: "n"}
    other = (3, 3, size + 32, size) if free else (3, 3, size, size)
    return Case(module, (torch.randn(2, 3, size, size),), {name: dims}, (torch.randn(other),))


def _text(module: Any) -> Case:
    def inputs(batch: int, length: int) -> tuple[Any, Any]:
        mask = torch.ones(batch, length, dtype=torch.long)
        mask[0, length // 2 :] = 0
        return torch.randint(3, 99, (batch, length)), mask

    dims = {0: "batch", 1: "length"}
    names = {"input_ids": dims, "attention_mask": dims}
    return Case(module, inputs(2, 12), names, inputs(3, 17))


def convnext() -> Case:
    config = hf.ConvNextConfig(depths=[1, 1, 2, 1], hidden_sizes=[16, 32, 64, 96], image_size=64)
    return _image(hf.ConvNextModel(config))


def efficientnet() -> Case:
    config = hf.EfficientNetConfig(
        image_size=64, width_coefficient=0.5, depth_coefficient=0.5, hidden_dim=640
    )
    return _image(hf.EfficientNetModel(config), free=False)


def resnet() -> Case:
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[32, 64], depths=[2, 1])
    return _image(hf.ResNetModel(config))


def mobilenet_v2() -> Case:
    return _image(hf.MobileNetV2Model(hf.MobileNetV2Config(depth_multiplier=0.35)))


def vit() -> Case:
    sizes = {key: SMALL[key] for key in SMALL if key != "vocab_size"}
    return _image(
        hf.ViTModel(hf.ViTConfig(**sizes, image_size=32, patch_size=8)), size=32, free=False
    )


def bert() -> Case:
    return _text(hf.BertModel(hf.BertConfig(**SMALL)))


def distilbert() -> Case:
    config = hf.DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    return _text(hf.DistilBertModel(config))


def roberta() -> Case:
    return _text(hf.RobertaModel(hf.RobertaConfig(**SMALL, max_position_embeddings=64)))


def t5_encoder() -> Case:
    config = hf.T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return _text(hf.T5EncoderModel(config))


def gpt2() -> Case:
    config = hf.GPT2Config(
        vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64, use_cache=False,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    case = _text(_ById(hf.GPT2LMHeadModel(config)))
    return Case(case.module, case.inputs[:1], {"input_ids": {0: "n", 1: "s"}}, case.others[:1])


def llama() -> Case:
    config = hf.LlamaConfig(
        **SMALL, num_key_value_heads=2, max_position_embeddings=64, use_cache=False
    )
    return _text(hf.LlamaForCausalLM(config))


def whisper_encoder() -> Case:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = hf.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64,
        max_source_positions=50, num_mel_bins=20,
    )  # fmt: skip
    dims = {"input_features": {0: "n"}}
    return Case(
        WhisperEncoder(config), (torch.randn(2, 20, 100),), dims, (torch.randn(3, 20, 100),)
    )


def unet() -> Case:
    return _image(UNet(), "x", size=32)


def densenet() -> Case:
    return _image(DenseNet(), "x")


class _ById(nn.Module):
    """A language model called with token numbers alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any) -> Any:
        return self.model(input_ids=input_ids).logits


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
    """Two levels down and up again: once by transposed convolution, once by interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.middle, self.bottom = (
            _double_conv(i, o) for i, o in ((3, 8), (8, 16), (16, 32))
        )
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.join_middle, self.join_top = _double_conv(32, 16), _double_conv(24, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Any) -> Any:
        top = self.top(x)
        middle = self.middle(F.max_pool2d(top, 2))
        y = self.up(self.bottom(F.max_pool2d(middle, 2)))
        y = self.join_middle(torch.cat([y, middle], 1))
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.out(self.join_top(torch.cat([y, top], 1))))


class DenseNet(nn.Module):
    """One dense block with bottlenecks, a transition, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.layers = nn.ModuleList(self._layer(16 + 8 * i) for i in range(4))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 24, 1), nn.AvgPool2d(2)
        )
        self.classifier = nn.Linear(24, 10)

    def _layer(self, channels: int) -> Any:
        return nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 16, 1, bias=False),
            nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.classifier(F.adaptive_avg_pool2d(self.transition(x), 1).flatten(1))


CASES: dict[str, Callable[[], Case]] = {
    make.__name__: make
    for make in (
        bert, convnext, densenet, distilbert, efficientnet, gpt2, llama, mobilenet_v2, resnet,
        roberta, t5_encoder, unet, vit, whisper_encoder,
    )
}  # fmt: skip
