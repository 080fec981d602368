"""Native runtime of lepton_rt. Kept true by tests/packaging/test_stubs.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

class Executor:
    """A plan ready to run. Thread-safe."""

    def __init__(
        self, meta: bytes, blobs: list[Array], threads: int = 0, host: Any = None
    ) -> None: ...
    def use_large_pages(self) -> None:
        """Moves constants to large pages where the system can; once memory has settled."""
    @staticmethod
    def open(path: str, threads: int = 0) -> Executor:
        """Maps a .plan file."""
    @staticmethod
    def load(data: bytes, threads: int = 0) -> Executor:
        """Takes the bytes of a .plan file."""
    def save(self, path: str, annotations: bytes) -> None:
        """Writes a .plan file with the annotations; refuses host steps."""
    def bind(self, shapes: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Binds to input shapes without running.

        Returns the bytes of working memory, and of what is alive at once, at most.
        """
    def output_shapes(self, shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...] | None]:
        """Shapes of the outputs for these input shapes; None where they depend on data."""
    def run(self, inputs: list[Array], outputs: Any = None) -> list[Array]:
        """Runs once: C-contiguous arrays in plan order in, a list of arrays out."""
    def run_plain(self, inputs: tuple[Any, ...]) -> Any:
        """Runs once if every input is a C-contiguous array of the right dtype and shape.

        Returns the array, or a list of several; None when the inputs are otherwise.
        """
    def profile(self, inputs: list[Array]) -> list[int]:
        """Runs once; the nanoseconds that each step took."""
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str:
        """Instruction set the plan was made for."""
    @property
    def annotations(self) -> bytes:
        """What save() was given, of a plan from a file."""
    @property
    def inputs(self) -> list[tuple[str, str]]:
        """(name, dtype) of every input."""
    @property
    def outputs(self) -> list[tuple[str, str]]:
        """(name, dtype) of every output."""
    @property
    def steps(
        self,
    ) -> list[tuple[str, str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
        """(operator, kernel, name, inputs, outputs, output dtypes) of every step."""
    @property
    def constant_bytes(self) -> int:
        """Bytes of the constants, packed weights included."""

def kernel_digest() -> str:
    """SHA-256 of the kernel lists, their contracts and packers: what plans depend on."""

def choose_gemm_s8(
    isa: str, b: Array, zero_points: Array | None = None, bound: int = 255, few_rows: bool = False
) -> str:
    """Name of the gemm_s8 kernel preferred for a target capped at isa and for this constant b.

    Operands as for pack_gemm_s8: not every kernel can hold every value of b minus its zero points,
    and for one that sums runs of products in 16 bits it depends on them whether it pays.
    """

def gemm_run_statistics(
    kernel: str, k: int, n: int, matrices: int, packed: npt.NDArray[np.uint8]
) -> dict[str, int]:
    """Of an operand packed in runs: its quads ("dense"), those in "runs4", "runs2", "runs1".

    A split quad counts twice in the runs, a quad of zeros not at all.
    """

def kernels() -> list[dict[str, Any]]:
    """Every line of the kernel lists: family, name, isa, mr, nr, kr, kind, available.

    gemm_s8 lines also have nv and form ("u8", "u8 pairs", "u8 runs" or "i16").
    """

def machine_isas() -> list[str]:
    """Instruction sets of this machine that have kernels, weakest first."""

def max_isa() -> str:
    """The best of machine_isas(), lowered to LEPTON_MAX_ISA when that is set."""

def pack_depthwise_s8(w: Array) -> npt.NDArray[np.uint8]:
    """Packs int16 w [taps, channels], zero points already subtracted, for depthwise_s8 kernels.

    Returns the bytes as uint8 [size]. The depthwise_f32 kernels take w as it is.
    """

def pack_gemm_bf16(kernel: str, b: Array) -> npt.NDArray[np.uint8]:
    """Packs float32 b [..., k, n], rounded to bfloat16 (to nearest, ties to even), for a gemm_bf16
    kernel; returns the bytes as uint8 [size].
    """

def pack_gemm_f32(kernel: str, b: Array) -> npt.NDArray[np.uint8]:
    """Packs float32 b [..., k, n] for a gemm_f32 kernel; returns the bytes as uint8 [size]."""

def pack_gemm_s8(
    kernel: str, b: Array, zero_points: Array | None = None, bound: int = 255, stride: int = 0
) -> npt.NDArray[np.uint8]:
    """Packs uint8 or int8 b [..., k, n] minus its zero points for a gemm_s8 kernel.

    zero_points has b's dtype and 1, n or batch * n entries. bound: the largest value of the other
    operand, as uint8 (int8 values count 128 more). stride: for kernels of form u8 runs, bytes from
    one panel to the next; 0: as many as the longest needs. Returns the bytes as uint8 [size].
    Raises ValueError when the kernel cannot hold a difference (see choose_gemm_s8).
    """

def lstm_step_units(kernel: str, isa: str) -> int:
    """Units whose gates i, o, f and g fill a panel of a gemm_s8 kernel, where R may be packed so.

    A kernel then computes an LSTM's whole step on a target capped at isa; 0: there is none.
    """

def load_op_library(path: str) -> list[tuple[str, str]]:
    """Loads a library of custom operators; returns domain and name of each.

    Raises InputError for what is no such library, UnsupportedError for one of another version.
    """

def infer_custom_op(
    key: str,
    inputs: Sequence[tuple[int, Sequence[int]] | None],
    attributes: Sequence[tuple[str, int, int, bytes]],
    num_outputs: int,
) -> list[tuple[int, list[int]]]:
    """(ONNX element type, dims) of the outputs of a library's operator; -1: a free dimension.

    Raises InputError with what the operator says.
    """

def rejected_steps(meta: bytes, blobs: list[Array]) -> list[tuple[int, str]]:
    """(index, reason) of every step that has no native kernel."""

def release_memory() -> None:
    """Gives freed memory back to the system."""

def select_kernel(family: str, isa: str) -> str:
    """Name of the kernel preferred for a target capped at isa, which need not be this machine.

    Raises ValueError for an unknown family or isa.
    """

def usable_isas() -> list[str]:
    """max_isa() and the instruction sets it includes, weakest first."""

def usable_processors() -> int:
    """Processors this process may use (affinity and cgroup quota respected)."""

testing: Any
"""Single microkernel calls on guarded operands, for the kernel tests."""
