"""Generation with real language models: causal ones, and decoders after their encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

import lepton_rt
from acceptance.torch_models import (
    enlivened,
    gpt2_config,
    llama_config,
    t5_config,
    whisper_config,
)
from decoder_models import EncoderKeys, export_decoder, export_decoder_step

Array = npt.NDArray[Any]
REAL = pytest.param(True, marks=pytest.mark.slow)
pytestmark = pytest.mark.timeout(900)


def greedy(logits: Callable[[Any], Any], start: Array, count: int) -> Array:
    """Tokens of the likeliest continuation; logits: tokens [batch, n] → [batch, n, vocabulary]."""
    tokens = torch.from_numpy(start)
    with torch.no_grad():
        for _ in range(count):
            tokens = torch.cat([tokens, logits(tokens)[:, -1:].argmax(-1)], 1)
    return np.asarray(tokens.numpy())


def assert_close(got: Array, want: Any) -> None:
    want = want.numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-3 * want.std()


def no_host_steps(session: lepton_rt.Session) -> bool:
    return not any(step.is_host for step in session.explain())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_causal_models_of_real_size(name: str) -> None:
    torch.manual_seed(0)
    if name == "gpt2":
        model = transformers.GPT2LMHeadModel(gpt2_config(True))
    else:
        model = transformers.LlamaForCausalLM(llama_config(True))
    enlivened(model, ())
    session = lepton_rt.Session(export_decoder(model, cache=True))
    assert no_host_steps(session)
    prompt = np.random.default_rng(0).integers(3, 30000, (2, 17))
    with torch.no_grad():
        want = model(input_ids=torch.from_numpy(prompt), use_cache=False).logits
    assert_close(session.run({"input_ids": prompt}, state=session.new_state()), want)
    seen: list[Any] = []
    got = lepton_rt.generate(session, prompt, 64, stream=seen.append)
    ids = torch.from_numpy(prompt)
    whole = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, pad_token_id=0
    )
    np.testing.assert_array_equal(got, whole.numpy())
    np.testing.assert_array_equal(np.stack(seen, 1), got[:, 17:])
    assert len(set(got[0, 17:].tolist())) > 3, "the model repeats itself: little is compared"


def t5(full: bool) -> tuple[Any, Any, Any]:
    model = transformers.T5ForConditionalGeneration(t5_config(full))
    return model, torch.randint(3, 99, (2, 23)), {"x": {0: "batch", 1: "length"}}


def whisper(full: bool) -> tuple[Any, Any, Any]:
    config = whisper_config(full)
    model = transformers.WhisperForConditionalGeneration(config)
    features = torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions)
    return model, features, {"x": {0: "batch"}}


@pytest.mark.parametrize("full", [False, REAL])
@pytest.mark.parametrize("make", [t5, whisper])
def test_decoder_after_its_encoder(make: Callable[[bool], Any], full: bool) -> None:
    """The encoder's keys and values are given to every step; the decoder's own stay with it."""
    torch.manual_seed(1)
    model, x, dynamic = make(full)
    enlivened(model, ())
    encoder = lepton_rt.Session(EncoderKeys(model).eval(), example_inputs=(x,), dynamic=dynamic)
    step = lepton_rt.Session(export_decoder_step(model))
    assert no_host_steps(encoder)
    assert no_host_steps(step)
    with torch.no_grad():
        keys = [key.numpy() for key in EncoderKeys(model).eval()(x)]
        states = model.get_encoder()(x)
    cross = dict(zip((s.name for s in step.inputs if ".encoder." in s.name), encoder(x.numpy())))
    for got, want in zip(cross.values(), keys, strict=True):
        assert_close(got, torch.from_numpy(want))

    def logits(tokens: Any) -> Any:
        return model(encoder_outputs=states, decoder_input_ids=tokens, use_cache=False).logits

    start = np.array([[1, 7, 50], [1, 30, 8]])
    with torch.no_grad():
        want = logits(torch.from_numpy(start))
    first = step.run({"input_ids": start, **cross}, state=step.new_state())
    assert_close(first, want)
    got = lepton_rt.generate(step, start, 24, inputs=cross)
    np.testing.assert_array_equal(got, greedy(logits, start, 24))
    with pytest.raises(lepton_rt.InputError, match="encoder"):
        lepton_rt.generate(step, start, 2)
    with pytest.raises(lepton_rt.InputError, match="nothing"):
        lepton_rt.generate(step, start, 2, inputs={**cross, "nothing": start})
