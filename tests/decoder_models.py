"""Language models of transformers, exported with and without their key/value caches."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

KINDS = ("key", "value")


def _cache(flat: list[torch.Tensor]) -> Any:
    """Keys of layer 0, values of layer 0, keys of layer 1, … as a cache."""
    return DynamicCache(list(zip(flat[::2], flat[1::2])))


def _flat(cache: Any) -> list[torch.Tensor]:
    return [x for layer in cache.layers for x in (layer.keys, layer.values)]


class CachedStep(torch.nn.Module):
    """Token ids and the cache of the tokens before → logits and the longer cache."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, past: list[torch.Tensor]) -> Any:
        out = self.model(input_ids=input_ids, past_key_values=_cache(past), use_cache=True)
        return out.logits, _flat(out.past_key_values)


class DecoderStep(torch.nn.Module):
    """As CachedStep, for the decoder of T5 or Whisper: `cross` are the encoder's keys, values."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, past: list[torch.Tensor], cross: list[torch.Tensor]
    ) -> Any:
        # Only the size of the encoder's states is looked at where their keys are there.
        states = cross[0].transpose(1, 2).flatten(2)
        out = self.model(
            decoder_input_ids=input_ids,
            encoder_outputs=(states,),
            past_key_values=EncoderDecoderCache(_cache(past), _cache(cross)),
            use_cache=True,
        )
        return out.logits, _flat(out.past_key_values.self_attention_cache)


class EncoderKeys(torch.nn.Module):
    """What T5's or Whisper's encoder is given → the keys and values of every decoder layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()
        if hasattr(model, "proj_out"):
            layers = [layer.encoder_attn for layer in model.model.decoder.layers]
            pairs = [(layer.k_proj, layer.v_proj) for layer in layers]
            self.depth = layers[0].head_dim
        else:
            layers = [block.layer[1].EncDecAttention for block in model.decoder.block]
            pairs = [(layer.k, layer.v) for layer in layers]
            self.depth = layers[0].key_value_proj_dim
        self.projections = torch.nn.ModuleList(part for pair in pairs for part in pair)

    def forward(self, x: torch.Tensor) -> Any:
        states = self.encoder(x).last_hidden_state
        return [p(states).unflatten(2, (-1, self.depth)).transpose(1, 2) for p in self.projections]


def export_decoder(model: Any, *, cache: bool, attention: str = "sdpa") -> bytes:
    """ONNX of a transformers causal language model; batch and lengths are dynamic.

    With cache: inputs ``past_key_values.N.key`` and ``.value`` [batch, heads, past, depth] beside
    ``input_ids``, outputs ``present.N.key`` and ``.value`` beside ``logits``.
    """
    config = model.config
    model.set_attn_implementation(attention)
    batch, rows = torch.export.Dim("batch"), torch.export.Dim("rows")
    kwargs: dict[str, Any] = {"input_ids": torch.zeros(2, 3, dtype=torch.int64)}
    shapes: dict[str, Any] = {"input_ids": {0: batch, 1: rows}}
    names: dict[str, Any] = {"input_names": ["input_ids"], "output_names": ["logits"]}
    module = model
    if cache:
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        depth = config.hidden_size // config.num_attention_heads
        ends = [f"{i}.{kind}" for i in range(config.num_hidden_layers) for kind in KINDS]
        kwargs["past"] = [torch.zeros(2, heads, 5, depth) for _ in ends]
        shapes["past"] = [{0: batch, 2: torch.export.Dim("past")} for _ in ends]
        names["input_names"] += [f"past_key_values.{end}" for end in ends]
        names["output_names"] += [f"present.{end}" for end in ends]
        module = CachedStep(model)
    else:
        config.use_cache = False
    return _exported(module, kwargs, shapes, names)


def export_decoder_step(model: Any) -> bytes:
    """ONNX of one step of the decoder of T5 or Whisper; batch and lengths are dynamic.

    Inputs ``input_ids``, ``past_key_values.N.decoder.key`` and ``.value`` as above, and
    ``past_key_values.N.encoder.key`` and ``.value``, which EncoderKeys makes; outputs ``logits``,
    ``present.N.decoder.key`` and ``.value``.
    """
    config, dim = model.config, torch.export.Dim
    layers = getattr(config, "num_decoder_layers", None) or config.decoder_layers
    heads = getattr(config, "num_heads", None) or config.decoder_attention_heads
    depth = getattr(config, "d_kv", None) or config.d_model // heads
    ends = [(i, kind) for i in range(layers) for kind in KINDS]
    batch, past, source = dim("batch"), dim("past"), dim("source")
    kwargs = {
        "input_ids": torch.zeros(2, 3, dtype=torch.int64),
        "past": [torch.zeros(2, heads, 5, depth) for _ in ends],
        "cross": [torch.zeros(2, heads, 7, depth) for _ in ends],
    }
    shapes = {
        "input_ids": {0: batch, 1: dim("rows")},
        "past": [{0: batch, 2: past} for _ in ends],
        "cross": [{0: batch, 2: source} for _ in ends],
    }
    inputs = [f"past_key_values.{i}.{who}.{k}" for who in ("decoder", "encoder") for i, k in ends]
    names = {
        "input_names": ["input_ids", *inputs],
        "output_names": ["logits", *(f"present.{i}.decoder.{kind}" for i, kind in ends)],
    }
    return _exported(DecoderStep(model), kwargs, shapes, names)


def _exported(module: Any, kwargs: Any, shapes: Any, names: dict[str, list[str]]) -> bytes:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
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
