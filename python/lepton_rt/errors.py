"""The exceptions lepton_rt raises; each also is the builtin exception a caller would expect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Error(Exception):
    """Base of everything lepton_rt raises on purpose."""


class ModelError(Error, ValueError):
    """A model file or graph is malformed, or breaks a rule of its format."""


class InputError(Error, ValueError):
    """An array given to a model does not fit the model's input."""


class UnsupportedError(Error, NotImplementedError):
    """The request is well formed, but this version cannot honour it."""


@contextmanager
def as_model_error(doing: str) -> Iterator[None]:
    """Whatever a malformed model makes Python code stumble over becomes a `ModelError`.

    Running out of memory and interrupts pass through.
    """
    try:
        yield
    except (Error, MemoryError):
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise ModelError(f"{doing}: {text[:500]}") from error
