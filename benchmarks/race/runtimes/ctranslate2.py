"""CTranslate2, for the encoders: float32, and int8 with activations quantised at run time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from .. import networks
from . import Absent, Array, Run, Source

PACKAGE = "ctranslate2"
MODULE = "ctranslate2"
VARIANTS = {"fp32": "fp32", "int8": "int8"}
SAME_FILE: dict[str, tuple[str, str]] = {}


def suffix(variant: str) -> str:
    return ".ct2"


def build(variant: str, source: Source, path: Path) -> None:
    if not source.name.startswith(("bert", "minilm")):
        raise Absent("of these networks it knows the BERT family alone")
    from ctranslate2.converters.transformers import BertLoader

    model = networks.module(source.name).inner
    model.config.position_embedding_type = "absolute"
    loader = BertLoader()
    spec = loader.get_model_spec(model)
    loader.set_config(spec.config, model, SimpleNamespace(unk_token="[UNK]"))
    spec.register_vocabulary([f"token{i}" for i in range(source.network.vocabulary)])
    spec.validate()
    spec.optimize(quantization="int8" if variant == "int8" else "float32")
    path.mkdir()
    spec.save(str(path))


def load(variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
    import ctranslate2

    encoder = ctranslate2.Encoder(
        str(path),
        intra_threads=threads,
        compute_type="int8" if variant == "int8" else "float32",
    )

    def run(x: Array) -> Array:
        ids = ctranslate2.StorageView.from_array(x.astype(np.int32))
        lengths = ctranslate2.StorageView.from_array(np.full(len(x), x.shape[1], np.int32))
        return np.array(encoder.forward_batch(ids, lengths).last_hidden_state)

    return run
