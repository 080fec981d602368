"""lepton_rt as a backend in the sense of `onnx.backend.base`, for test suites and harnesses.

The module itself may be given where a backend is wanted: `prepare`, `run_model`, `run_node`,
`supports_device` and `is_compatible` are functions of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from lepton_rt.errors import Error, InputError
from lepton_rt.session import Session


class LeptonRep(BackendRep):
    """A compiled model."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, as a named tuple; inputs: a list in order, a dict, or a single array.

        Raises:
            InputError: an input is missing, unknown, or of the wrong dtype or shape.
        """
        del kwargs
        if isinstance(inputs, Mapping):
            made = self.session.run(inputs)
        elif isinstance(inputs, (list, tuple)):
            made = self.session.run(*inputs)
        else:
            made = self.session.run(inputs)
        names = [spec.name for spec in self.session.outputs]
        results = [made] if len(names) == 1 else list(made)
        outputs: tuple[Any, ...] = namedtupledict("Outputs", names)(*results)
        return outputs


class LeptonBackend(Backend):
    """Compiles and runs models on the CPU."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be compiled."""
        try:
            cls.prepare(model, device, **kwargs)
        except Error:
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> LeptonRep:
        """Compiles the model; keyword arguments are those of `Session`.

        Raises:
            InputError: the device is not the CPU.
            ModelError, UnsupportedError: as `Session`.
        """
        if not cls.supports_device(device):
            raise InputError(f"there is no device {device!r}, only 'CPU'")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # host steps are as right
            return LeptonRep(Session(model, **kwargs))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Compiles the model and runs it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Runs one operator; outputs_info: dtype and shape per output, where they are known."""
        opset = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        names = [name for name in node.input if name]
        given = [inputs[name] for name in names] if isinstance(inputs, Mapping) else list(inputs)
        arrays = dict(zip(names, map(np.asarray, given)))
        info = helper.make_tensor_value_info
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        if outputs_info is not None:
            outputs = [
                info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
                for name, (dtype, shape) in zip(node.output, outputs_info)
            ]
        graph = helper.make_graph(
            [node],
            node.op_type,
            [
                info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in arrays.items()
            ],
            outputs,
        )
        imports = [helper.make_opsetid("", opset)]
        if node.domain:
            imports.append(helper.make_opsetid(node.domain, 1))
        return cls.run_model(
            helper.make_model(graph, opset_imports=imports), arrays, device, **kwargs
        )

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether the device is a CPU ("CPU", "CPU:0")."""
        try:
            return bool(Device(device).type == DeviceType.CPU)
        except (AttributeError, ValueError):
            return False


is_compatible = LeptonBackend.is_compatible
prepare = LeptonBackend.prepare
run_model = LeptonBackend.run_model
run_node = LeptonBackend.run_node
supports_device = LeptonBackend.supports_device
