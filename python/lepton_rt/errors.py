"""The exceptions lepton_rt raises; each also is the builtin exception a caller would expect."""

from __future__ import annotations


class Error(Exception):
    """Base of everything lepton_rt raises on purpose."""


class ModelError(Error, ValueError):
    """A model file or graph is malformed, or breaks a rule of its format."""


class InputError(Error, ValueError):
    """An array given to a model does not fit the model's input."""


class UnsupportedError(Error, NotImplementedError):
    """The request is well formed, but this version cannot honour it."""
