"""Generated tokens equal those of torch, with a key/value cache and without."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

import lepton_rt
from decoder_models import export_decoder
from lepton_rt import InputError, generate

Array = npt.NDArray[Any]
PROMPT = np.array([[5, 17, 3, 88, 4, 4, 21], [9, 1, 2, 60, 61, 62, 63]])


@cache
def model(name: str) -> Any:
    torch.manual_seed(3)
    if name == "gpt2":
        config = transformers.GPT2Config(
            n_embd=64, n_layer=3, n_head=4, vocab_size=100, n_positions=256
        )
    else:
        config = transformers.LlamaConfig(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
            vocab_size=100,
        )
    config.bos_token_id = config.eos_token_id = None
    made = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in made.parameters():  # spread logits: greedy choices must not hang on rounding
        parameter.data.mul_(2.0)
    return made.eval()


@cache
def session(name: str, with_cache: bool, attention: str = "sdpa") -> lepton_rt.Session:
    proto = export_decoder(model(name), cache=with_cache, attention=attention)
    return lepton_rt.Session(proto, threads=2)


@cache
def greedy(name: str, count: int) -> Array:
    made = model(name)
    with torch.no_grad():
        tokens = torch.from_numpy(PROMPT)
        for _ in range(count):
            logits = made(input_ids=tokens, use_cache=False).logits[:, -1]
            tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    return np.asarray(tokens.numpy())


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("with_cache", [True, False])
def test_greedy_tokens_equal_torch(name: str, with_cache: bool) -> None:
    got = generate(session(name, with_cache), PROMPT, 64)
    np.testing.assert_array_equal(got, greedy(name, 64))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_attention_spelt_out(name: str) -> None:
    made = session(name, True, "eager")
    assert sum(step.op == "lepton.Attention" for step in made.explain()) == 3
    np.testing.assert_array_equal(generate(made, PROMPT, 20), greedy(name, 20))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_layer_is_one_native_attention(name: str) -> None:
    steps = list(session(name, True).explain())
    assert sum(step.op == "lepton.Attention" for step in steps) == 3
    assert not [step.op for step in steps if step.op in ("Softmax", "MatMul")]
    assert not [step.name for step in steps if step.is_host]


def test_one_sequence_and_stream() -> None:
    seen: list[int] = []
    got = generate(session("gpt2", True), PROMPT[0].tolist(), 12, stream=seen.append)
    np.testing.assert_array_equal(got, greedy("gpt2", 12)[0])
    assert seen == got[len(PROMPT[0]) :].tolist()
    assert all(type(token) is int for token in seen)


def test_ends_at_eos_and_fills_up_with_it() -> None:
    whole = greedy("gpt2", 30)
    eos = int(whole[0, PROMPT.shape[1] + 4])
    got = generate(session("gpt2", True), PROMPT, 30, eos_token_id=eos)
    for row, want in zip(got, whole):
        new = want[PROMPT.shape[1] :].tolist()
        end = PROMPT.shape[1] + (new.index(eos) + 1 if eos in new else len(new))
        np.testing.assert_array_equal(row[:end], want[:end][: len(row)])
        assert (row[end:] == eos).all()


def test_sampling_is_repeatable_and_follows_its_limits() -> None:
    made = session("gpt2", True)
    options: dict[str, Any] = {"temperature": 0.9, "top_k": 5, "top_p": 0.95}
    first = generate(made, PROMPT, 20, seed=7, **options)
    np.testing.assert_array_equal(first, generate(made, PROMPT, 20, seed=7, **options))
    assert (first != generate(made, PROMPT, 20, seed=8, **options)).any()
    np.testing.assert_array_equal(
        generate(made, PROMPT, 20, temperature=2.0, top_k=1, seed=1), greedy("gpt2", 20)
    )
    np.testing.assert_array_equal(
        generate(made, PROMPT, 20, temperature=1.0, top_p=1e-6, seed=1), greedy("gpt2", 20)
    )


def test_drawn_tokens_follow_the_probabilities() -> None:
    made = session("gpt2", False)
    prompt = np.repeat(PROMPT[:1], 3000, axis=0)
    with torch.no_grad():
        logits = model("gpt2")(input_ids=torch.from_numpy(PROMPT[:1])).logits[0, -1].double()
    drawn = generate(made, prompt, 1, temperature=3.0, top_k=10, seed=0)[:, -1]
    top = torch.topk(logits, 10)
    want = torch.softmax(top.values / 3.0, 0).numpy()
    found = np.array([(drawn == token).mean() for token in top.indices.numpy()])
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, want, atol=4 * np.sqrt(0.25 / 3000))


@pytest.mark.parametrize(
    "ids, options",
    [
        ([], {}),
        ([0.5], {}),
        ([[[1]]], {}),
        ([1], {"temperature": -1.0}),
        ([1], {"temperature": float("nan")}),
        ([1], {"top_k": 0}),
        ([1], {"top_p": 0.0}),
        ([1], {"top_p": 1.5}),
        ([1], {"max_new_tokens": -1}),
    ],
)
def test_bad_arguments(ids: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        generate(session("gpt2", False), ids, **options)
