"""The architectures that PyTorch users bring, with random weights: small, and at their real size.

An entry makes the module, its example inputs, which dimensions are dynamic, and inputs of another
size. `full` says which of the two sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import nn
from transformers.pytorch_utils import Conv1D

from acceptance.torch_networks import DenseNet, UNet


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


def _image(
    module: Any, full: bool, name: str = "pixel_values", size: int = 64, free: bool = True
) -> Case:
    """free: height and width may vary, too."""
    size = 224 if full else size
    dims = {0: "n", 2: "h", 3: "w"} if free else {0: "n"}
    other = (1, 3, size + 32, size) if free else (3, 3, size, size)
    return Case(module, (_pictures(2, 3, size, size),), {name: dims}, (_pictures(*other),))


def _pictures(*shape: int) -> Any:
    """Noise about other colours and of other contrast in every picture."""
    colours, contrast = torch.randn(*shape[:2], 1, 1), torch.rand(shape[0], 1, 1, 1) + 0.5
    return colours + contrast * torch.randn(shape)


def _text(module: Any, full: bool) -> Case:
    def inputs(batch: int, length: int) -> tuple[Any, Any]:
        mask = torch.ones(batch, length, dtype=torch.long)
        mask[0, length // 2 :] = 0
        return torch.randint(3, 30000 if full else 99, (batch, length)), mask

    dims = {0: "batch", 1: "length"}
    names = {"input_ids": dims, "attention_mask": dims}
    sizes = ((2, 64), (3, 37)) if full else ((2, 12), (3, 17))
    return Case(module, inputs(*sizes[0]), names, inputs(*sizes[1]))


def _prompt(module: Any, full: bool) -> Case:
    case = _text(_ById(module), full)
    return Case(
        case.module,
        case.inputs[:1],
        {"input_ids": case.dynamic["input_ids"]},
        case.others[:1],
    )


def convnext(full: bool) -> Case:
    """ConvNeXt-tiny."""
    small = {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 96], "image_size": 64}
    return _image(hf.ConvNextModel(hf.ConvNextConfig(**({} if full else small))), full)


def efficientnet(full: bool) -> Case:
    """EfficientNet-B0."""
    sizes = (224, 1.0, 1280) if full else (64, 0.5, 640)
    config = hf.EfficientNetConfig(
        image_size=sizes[0], width_coefficient=sizes[1], depth_coefficient=sizes[1],
        hidden_dim=sizes[2],
    )  # fmt: skip
    return _image(hf.EfficientNetModel(config), full, free=False)


def resnet(full: bool) -> Case:
    """ResNet-50."""
    small = {"embedding_size": 8, "hidden_sizes": [32, 64], "depths": [2, 1]}
    return _image(hf.ResNetModel(hf.ResNetConfig(**({} if full else small))), full)


def mobilenet_v2(full: bool) -> Case:
    """MobileNetV2."""
    config = hf.MobileNetV2Config(depth_multiplier=1.0 if full else 0.35)
    return _image(hf.MobileNetV2Model(config), full, free=False)


def vit(full: bool) -> Case:
    """ViT-B/16."""
    small = {key: SMALL[key] for key in SMALL if key != "vocab_size"}
    config = hf.ViTConfig() if full else hf.ViTConfig(**small, image_size=32, patch_size=8)
    return _image(hf.ViTModel(config), full, size=32, free=False)


def bert(full: bool) -> Case:
    """BERT-base."""
    return _text(hf.BertModel(hf.BertConfig(**({} if full else SMALL))), full)


def distilbert(full: bool) -> Case:
    """DistilBERT-base."""
    small = {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    return _text(hf.DistilBertModel(hf.DistilBertConfig(**({} if full else small))), full)


def roberta(full: bool) -> Case:
    """RoBERTa-base."""
    config = hf.RobertaConfig() if full else hf.RobertaConfig(**SMALL, max_position_embeddings=64)
    return _text(hf.RobertaModel(config), full)


def t5_encoder(full: bool) -> Case:
    """The encoder of T5-small."""
    return _text(hf.T5EncoderModel(t5_config(full)), full)


def gpt2(full: bool) -> Case:
    """GPT-2 (124 M parameters) reading a prompt."""
    return _prompt(hf.GPT2LMHeadModel(gpt2_config(full)), full)


def llama(full: bool) -> Case:
    """A Llama of 56 M parameters reading a prompt."""
    return _prompt(hf.LlamaForCausalLM(llama_config(full)), full)


def whisper_encoder(full: bool) -> Case:
    """The encoder of Whisper-tiny."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = whisper_config(full)
    shape = (config.num_mel_bins, 2 * config.max_source_positions)
    examples = [(torch.randn(batch, *shape),) for batch in ((2, 1) if full else (2, 3))]
    return Case(WhisperEncoder(config), examples[0], {"input_features": {0: "n"}}, examples[1])


def unet(full: bool) -> Case:
    """A U-Net of five levels and 31 M parameters."""
    return _image(UNet((64, 128, 256, 512, 1024) if full else (8, 16, 32)), False, "x", size=64)


def densenet(full: bool) -> Case:
    """DenseNet-121."""
    return _image(DenseNet(32, (6, 12, 24, 16)) if full else DenseNet(8, (2, 3)), full, "x")


def gpt2_config(full: bool) -> Any:
    small = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return hf.GPT2Config(**({} if full else small), bos_token_id=None, eos_token_id=None)


def llama_config(full: bool) -> Any:
    real = {
        "vocab_size": 32000, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
        "intermediate_size": 1408,
    }  # fmt: skip
    sizes = {**real, "num_key_value_heads": 4} if full else {**SMALL, "num_key_value_heads": 2}
    return hf.LlamaConfig(
        **sizes, max_position_embeddings=512, bos_token_id=None, eos_token_id=None
    )


def t5_config(full: bool) -> Any:
    small = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4}
    return hf.T5Config() if full else hf.T5Config(**small, num_layers=2)


def whisper_config(full: bool) -> Any:
    """Whisper-tiny, or smaller."""
    if full:
        return hf.WhisperConfig()
    return hf.WhisperConfig(
        vocab_size=100, d_model=32, encoder_layers=2, encoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64,
        max_source_positions=50, max_target_positions=64, num_mel_bins=20,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip


class _ById(nn.Module):
    """A language model called with token numbers alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any) -> Any:
        return self.model(input_ids=input_ids, use_cache=False).logits


def enlivened(module: Any, inputs: tuple[Any, ...]) -> Any:
    """The module in eval mode with random weights of the sizes that trained ones have.

    Fresh networks have no biases and norms that scale by one; their activations fade away, or
    hardly depend on the input: errors would not show.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.3)
            elif isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, Conv1D)):
                transposed = isinstance(part, (nn.ConvTranspose2d, Conv1D))
                fan_in = part.weight.numel() // part.weight.shape[1 if transposed else 0]
                nn.init.normal_(part.weight, std=fan_in**-0.5)
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        for norm in norms:
            norm.momentum = None  # the average of all batches
        module.train(bool(norms))
        for _ in range(2 if norms else 0):
            module(*(_pictures(*x.shape) for x in inputs))
    return module.eval()


CASES: dict[str, Callable[[bool], Case]] = {
    make.__name__: make
    for make in (
        bert, convnext, densenet, distilbert, efficientnet, gpt2, llama, mobilenet_v2, resnet,
        roberta, t5_encoder, unet, vit, whisper_encoder,
    )
}  # fmt: skip
