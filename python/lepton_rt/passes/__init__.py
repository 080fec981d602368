"""The compiler's passes: pure functions Graph → Graph, one per file.

`PASSES` lists what `optimise` runs, in order. `legalise` is the part that every graph needs
before it can be lowered.
"""

from __future__ import annotations

from collections.abc import Callable

from lepton_rt.graph.ir import Graph
from lepton_rt.graph.types import infer_types

from .absorb_qdq import absorb_qdq
from .choose_layout import choose_layout
from .decompose_einsum import decompose_einsum
from .drop_masks import drop_masks
from .eliminate import eliminate
from .fold_constants import fold_constants
from .fold_dequantize import fold_dequantize
from .fuse_attention import fuse_attention
from .fuse_batch_norm import fuse_batch_norm
from .fuse_clamp import fuse_clamp
from .fuse_dynamic_quantize import fuse_dynamic_quantize
from .fuse_elementwise import fuse_elementwise
from .fuse_epilogue import fuse_epilogue
from .fuse_matmul_nbits import fuse_matmul_nbits
from .fuse_residual import fuse_residual
from .move_dequantize import move_dequantize
from .move_quantize import move_quantize
from .move_reshape import move_reshape
from .normalise import normalise
from .recognise_attention import recognise_attention
from .recognise_gelu import recognise_gelu
from .recognise_shuffle import recognise_shuffle
from .rotate_rows import rotate_rows
from .scale_quantize import scale_quantize
from .share_nodes import share_nodes

__all__ = ["PASSES", "legalise", "optimise"]

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    fold_constants,
    eliminate,
    decompose_einsum,
    normalise,
    recognise_shuffle,
    share_nodes,
    recognise_attention,
    drop_masks,
    recognise_gelu,
    rotate_rows,
    fuse_attention,
    fuse_batch_norm,
    choose_layout,
    move_dequantize,
    move_quantize,
    fold_constants,
    absorb_qdq,
    fuse_residual,
    fuse_matmul_nbits,
    fold_dequantize,
    fuse_dynamic_quantize,
    move_reshape,
    fuse_epilogue,
    scale_quantize,
    fuse_elementwise,
    fuse_clamp,
    eliminate,
)


def optimise(graph: Graph) -> Graph:
    """Runs all passes; `graph` is left as it is."""
    graph = infer_types(graph)
    for run in PASSES:
        graph = run(graph)
    return graph


def legalise(graph: Graph) -> Graph:
    """The plainest form that can be lowered: no fusion, every operator on its own."""
    return choose_layout(
        fold_dequantize(normalise(decompose_einsum(infer_types(graph)))), sink=False
    )
