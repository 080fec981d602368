"""lepton_rt compresses neural networks and runs them fast."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lepton_rt.errors import Error, InputError, ModelError, UnsupportedError

if TYPE_CHECKING:
    from lepton_rt import compat
    from lepton_rt.compress.compare import Comparison, compare
    from lepton_rt.compress.prune import PrunedModel, prune
    from lepton_rt.compress.quantize import QuantizedModel, quantize
    from lepton_rt.compress.share import SharedModel, share_weights
    from lepton_rt.custom import load_op_library, register_op
    from lepton_rt.explanation import Explanation
    from lepton_rt.generation import generate
    from lepton_rt.graph.lepton_io import load_lepton, save_lepton
    from lepton_rt.graph.onnx_io import export_onnx, import_onnx, save_onnx
    from lepton_rt.interface import TensorSpec
    from lepton_rt.session import Outputs, Session
    from lepton_rt.state import State
    from lepton_rt.zoo import Model, load_model, preprocess_image

__version__ = "0.1.0"

# Public name → module that defines it. Resolved on first use, so that importing lepton_rt is
# quick and pulls in neither torch nor onnx.
_LAZY = {
    "Comparison": "lepton_rt.compress.compare",
    "Explanation": "lepton_rt.explanation",
    "Model": "lepton_rt.zoo",
    "PrunedModel": "lepton_rt.compress.prune",
    "Outputs": "lepton_rt.session",
    "QuantizedModel": "lepton_rt.compress.quantize",
    "Session": "lepton_rt.session",
    "SharedModel": "lepton_rt.compress.share",
    "State": "lepton_rt.state",
    "TensorSpec": "lepton_rt.interface",
    "compare": "lepton_rt.compress.compare",
    "export_onnx": "lepton_rt.graph.onnx_io",
    "generate": "lepton_rt.generation",
    "import_onnx": "lepton_rt.graph.onnx_io",
    "load_lepton": "lepton_rt.graph.lepton_io",
    "load_model": "lepton_rt.zoo",
    "load_op_library": "lepton_rt.custom",
    "preprocess_image": "lepton_rt.zoo",
    "prune": "lepton_rt.compress.prune",
    "quantize": "lepton_rt.compress.quantize",
    "register_op": "lepton_rt.custom",
    "save_lepton": "lepton_rt.graph.lepton_io",
    "save_onnx": "lepton_rt.graph.onnx_io",
    "share_weights": "lepton_rt.compress.share",
}

# Modules that are public as they are.
_MODULES = {"compat"}

__all__ = [
    "Comparison",
    "Error",
    "Explanation",
    "InputError",
    "Model",
    "ModelError",
    "Outputs",
    "PrunedModel",
    "QuantizedModel",
    "Session",
    "SharedModel",
    "State",
    "TensorSpec",
    "UnsupportedError",
    "__version__",
    "compare",
    "compat",
    "export_onnx",
    "generate",
    "import_onnx",
    "load_lepton",
    "load_model",
    "load_op_library",
    "preprocess_image",
    "prune",
    "quantize",
    "register_op",
    "save_lepton",
    "save_onnx",
    "share_weights",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lepton_rt.{name}")
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'lepton_rt' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
