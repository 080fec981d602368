"""Causal language models of transformers, exported with and without their key/value cache."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers.cache_utils import DynamicCache


class CachedStep(torch.nn.Module):
    """Token ids and the cache of the tokens before → logits and the longer cache.

    past and present are flat: keys of layer 0, values of layer 0, keys of layer 1, …
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, past: list[torch.Tensor]) -> Any:
        cache = DynamicCache(list(zip(past[::2], past[1::2])))
        out = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        present = [x for layer in out.past_key_values.layers for x in (layer.keys, layer.values)]
        return out.logits, present


def export_decoder(model: Any, *, cache: bool, attention: str = "sdpa") -> bytes:
    """ONNX of a transformers causal language model; batch and lengths are dynamic.

    With cache: inputs ``past_key_values.N.key`` and ``.value`` [batch, heads, past, depth] beside
    ``input_ids``, outputs ``present.N.key`` and ``.value`` beside ``logits``.
    """
    config = model.config
    model.set_attn_implementation(attention)
    model.eval()
    batch, rows = torch.export.Dim("batch"), torch.export.Dim("rows")
    kwargs: dict[str, Any] = {"input_ids": torch.zeros(2, 3, dtype=torch.int64)}
    shapes: dict[str, Any] = {"input_ids": {0: batch, 1: rows}}
    names: dict[str, Any] = {"input_names": ["input_ids"], "output_names": ["logits"]}
    module = model
    if cache:
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        depth = config.hidden_size // config.num_attention_heads
        layers = range(config.num_hidden_layers)
        kwargs["past"] = [torch.zeros(2, heads, 5, depth) for _ in layers for _ in "kv"]
        shapes["past"] = [{0: batch, 2: torch.export.Dim("past")}] * len(kwargs["past"])
        ends = [f"{i}.{kind}" for i in layers for kind in ("key", "value")]
        names["input_names"] += [f"past_key_values.{end}" for end in ends]
        names["output_names"] += [f"present.{end}" for end in ends]
        module = CachedStep(model)
    else:
        config.use_cache = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (),
            kwargs=kwargs,
            dynamic_shapes=shapes,
            dynamo=True,
            opset_version=23,
            verbose=False,
            **names,
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())
