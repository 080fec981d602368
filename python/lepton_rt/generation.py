"""Token-by-token generation with any causal language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lepton_rt.errors import InputError
from lepton_rt.graph.ir import Array
from lepton_rt.session import Session

__all__ = ["generate"]


def generate(
    session: Session,
    ids: Any,
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    eos_token_id: int | None = None,
    stream: Callable[[Any], object] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Array:
    """Continues token sequences with a causal language model, or with a decoder after its encoder.

    A model with cache inputs and outputs (``past_key_values.0.key`` and ``present.0.key``, or the
    pairs that the session was given as ``state``) reads the prompt once and then one token at a
    time; any other is run on the whole sequence for every token.

    Args:
        session: a model whose first integer input takes token ids [batch, sequence] and whose
            output ``logits`` (else its first output) is [batch, sequence, vocabulary].
            ``attention_mask``, ``position_ids`` and ``cache_position`` are supplied when the model
            has them.
        ids: the prompt: integers, [sequence] or [batch, sequence]; one length for the batch.
        max_new_tokens: tokens to add, at most.
        temperature: 0 takes the likeliest token (greedy); above, tokens are drawn from
            softmax(logits / temperature).
        top_k: draw among the k likeliest only.
        top_p: draw among the likeliest whose probabilities reach p only.
        seed: makes drawing repeatable.
        eos_token_id: a sequence that emits it is finished and is filled up with it; generation
            ends when all are.
        stream: called with every new token: an int, or an int64 array [batch] for a batch.
        inputs: the model's other inputs by name, the same for every token: what an encoder made
            for its decoder to look at (states, or keys and values, and their mask).

    Returns:
        int64 array: the prompt and the new tokens, [sequence] or [batch, sequence].

    Raises:
        InputError: the prompt is empty or no array of integers, a parameter is out of its range,
            inputs names no input of the model, or the model's inputs and outputs are not those of
            a language model.
    """
    prompt, single = _prompt(ids)
    pick = _Picker(temperature, top_k, top_p, seed)
    if max_new_tokens < 0:
        raise InputError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    decoder = _Decoder(session, inputs or {})
    tokens = prompt
    finished = np.zeros(len(prompt), np.bool_)
    for _ in range(max_new_tokens):
        following = pick(decoder.logits(tokens))
        if eos_token_id is not None:
            following = np.where(finished, eos_token_id, following)
            finished |= following == eos_token_id
        tokens = np.concatenate([tokens, following[:, None]], axis=1)
        if stream is not None:
            stream(int(following[0]) if single else following)
        if eos_token_id is not None and finished.all():
            break
    return tokens[0] if single else tokens


def _prompt(ids: Any) -> tuple[Array, bool]:
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or array.size == 0:
        raise InputError("ids must be integers, [sequence] or [batch, sequence], at least one")
    return np.atleast_2d(array).astype(np.int64), array.ndim == 1


class _Picker:
    """Chooses the next token of every row of logits."""

    def __init__(
        self, temperature: float, top_k: int | None, top_p: float | None, seed: int | None
    ) -> None:
        if not temperature >= 0:
            raise InputError(f"temperature must not be negative, got {temperature}")
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k must be at least 1, got {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise InputError(f"top_p must be in (0, 1], got {top_p}")
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p
        self._random = np.random.default_rng(seed)

    def __call__(self, logits: Array) -> Array:
        if self._temperature == 0:
            return np.asarray(logits.argmax(axis=-1), np.int64)
        drawn = [self._draw(row) for row in logits]
        return np.array(drawn, np.int64)

    def _draw(self, logits: Array) -> int:
        scores = logits.astype(np.float64) / self._temperature
        order = np.argsort(-scores, kind="stable")[: self._top_k]
        p = np.exp(scores[order] - scores[order[0]])
        p /= p.sum()
        if self._top_p is not None:
            # The likeliest tokens up to the one that reaches top_p.
            count = int(np.searchsorted(np.cumsum(p), self._top_p)) + 1
            order, p = order[:count], p[:count] / p[:count].sum()
        return int(self._random.choice(order, p=p))


class _Decoder:
    """A session as a function from tokens so far to the logits of the next."""

    def __init__(self, session: Session, given: Mapping[str, Any]) -> None:
        self._session = session
        self._state = session.new_state() if session.state else None
        self._seen = 0
        free = [spec for spec in session.inputs if spec.name not in session.state]
        unknown = [name for name in given if name not in (spec.name for spec in free)]
        if unknown:
            raise InputError(f"inputs names no input of the model: {', '.join(unknown)}")
        self._given = {name: np.asarray(value) for name, value in given.items()}
        self._specs = {spec.name: spec for spec in free if spec.name not in given}
        self._ids = _ids_input(self._specs)
        names = [spec.name for spec in session.outputs]
        self._logits = names.index("logits") if "logits" in names else 0

    def logits(self, tokens: Array) -> Array:
        """Logits [batch, vocabulary] after the last of tokens [batch, sequence]."""
        feeds = self._feeds(tokens)
        if self._state is None:
            result = self._session.run(feeds)
        else:
            result = self._session.run(feeds, state=self._state)
            self._seen = tokens.shape[1]
        logits = result if isinstance(result, np.ndarray) else result[self._logits]
        if logits.ndim != 3 or logits.dtype.kind != "f":
            raise InputError(
                f"the model's output is {logits.dtype} of rank {logits.ndim}; generation needs "
                "logits [batch, sequence, vocabulary]"
            )
        return np.asarray(logits[:, -1])

    def _feeds(self, tokens: Array) -> dict[str, Array]:
        batch, total = tokens.shape
        positions = np.arange(self._seen, total)
        known = {
            self._ids: tokens[:, self._seen :],
            "attention_mask": np.ones((batch, total)),
            "position_ids": np.broadcast_to(positions, (batch, len(positions))),
            "cache_position": positions,
            "token_type_ids": np.zeros((batch, len(positions))),
        }
        missing = [name for name in self._specs if name not in known]
        if missing:
            raise InputError(
                f"generation does not know what to feed to {', '.join(missing)}: give it as inputs"
            )
        made = {n: np.ascontiguousarray(known[n], spec.dtype) for n, spec in self._specs.items()}
        return {**self._given, **made}


def _ids_input(specs: dict[str, Any]) -> str:
    """The input that takes token ids."""
    if "input_ids" in specs:
        return "input_ids"
    others = {"attention_mask", "position_ids", "cache_position", "token_type_ids"}
    for name, spec in specs.items():
        if name not in others and spec.dtype.kind in "iu" and len(spec.shape or (0, 0)) == 2:
            return str(name)
    raise InputError("the model has no input of token ids [batch, sequence]")
