"""Data movement: Reshape … ScatterND against NumPy and the onnx reference evaluator."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import run_op
from lepton_rt.errors import Error, UnsupportedError
from onnx_reference import reference

Array = npt.NDArray[Any]
DTYPES = ["uint8", "float16", "float32", "int64"]
"""One dtype per element size."""

few = settings(max_examples=60, deadline=None)


def sample(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Array:
    """Elements that differ from their neighbours, of any dtype."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(0, 256 if dtype == "uint8" else 2000, shape).astype(dtype)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def move(key: str, inputs: list[Array | None], attrs: Any = None, **options: Any) -> Array:
    """The single output of a movement operator, which has its first input's dtype."""
    first = inputs[0]
    assert first is not None
    return run_op(key, inputs, attrs, outputs=(str(first.dtype),), **options)[0]


def same_as_reference(key: str, inputs: list[Array | None], attrs: Any = None, **kw: Any) -> None:
    got = move(key, inputs, attrs, **kw)
    (want,) = reference(key, inputs, attrs)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


# Views


@pytest.mark.parametrize(
    ("shape", "target", "allowzero"),
    [
        ((2, 3, 4), (4, -1), 0),
        ((2, 3, 4), (0, 0, 2, 2), 0),
        ((2, 3, 4), (-1,), 0),
        ((0, 3), (3, 0), 1),
        ((1,), (), 0),
        ((), (1, 1), 0),
        ((0, 4), (-1, 4), 0),
        ((2,) * 8, (16, 16), 0),
    ],
)
@pytest.mark.parametrize("constant", [True, False])
def test_reshape(
    shape: tuple[int, ...], target: tuple[int, ...], allowzero: int, constant: bool
) -> None:
    x = sample(shape)
    got = move(
        "Reshape",
        [x, ints(*target)],
        {"allowzero": allowzero},
        constants=(1,) if constant else (),
    )
    want = list(target)
    if not allowzero:
        want = [shape[i] if d == 0 else d for i, d in enumerate(want)]
    np.testing.assert_array_equal(got, x.reshape(want))


@pytest.mark.parametrize(
    "target", [(5,), (-1, -1), (-2, 3), (0, 0, 0), (1 << 62, 1 << 62), (-1, 0, 6), (1,) * 9]
)
def test_reshape_rejects(target: tuple[int, ...]) -> None:
    with pytest.raises(Error):
        move("Reshape", [sample((2, 3)), ints(*target)], {"allowzero": 1})


@pytest.mark.parametrize("axis", range(-3, 4))
def test_flatten(axis: int) -> None:
    same_as_reference("Flatten", [sample((2, 3, 4))], {"axis": axis})


@pytest.mark.parametrize("axis", [4, -4, 1 << 40])
def test_flatten_rejects(axis: int) -> None:
    with pytest.raises(Error):
        move("Flatten", [sample((2, 3, 4))], {"axis": axis})


@pytest.mark.parametrize("axes", [None, (0,), (-1,), (0, 3), (-4, -1)])
def test_squeeze(axes: tuple[int, ...] | None) -> None:
    x = sample((1, 3, 2, 1))
    got = move("Squeeze", [x] if axes is None else [x, ints(*axes)])
    np.testing.assert_array_equal(got, np.squeeze(x, axes))


@pytest.mark.parametrize("axes", [(1,), (4,), (0, 0), (0, -4), (-5,)])
def test_squeeze_rejects(axes: tuple[int, ...]) -> None:
    with pytest.raises(Error):
        move("Squeeze", [sample((1, 3, 2, 1)), ints(*axes)])


@pytest.mark.parametrize("axes", [(0,), (-1,), (0, 4), (4, 0), (-1, 1), ()])
def test_unsqueeze(axes: tuple[int, ...]) -> None:
    x = sample((2, 3, 4))
    np.testing.assert_array_equal(move("Unsqueeze", [x, ints(*axes)]), np.expand_dims(x, axes))


@pytest.mark.parametrize("axes", [(4,), (0, 0), (-5,), tuple(range(6))])
def test_unsqueeze_rejects(axes: tuple[int, ...]) -> None:
    with pytest.raises(Error):
        move("Unsqueeze", [sample((2, 3, 4)), ints(*axes)])


def test_identity_and_dropout() -> None:
    x = sample((3, 4))
    np.testing.assert_array_equal(move("Identity", [x]), x)
    y, mask = run_op(
        "Dropout",
        [x, np.float32(0.5), np.bool_(False)],
        constants=(1, 2),
        outputs=("float32", "bool"),
    )
    np.testing.assert_array_equal(y, x)
    assert mask.all()
    assert mask.shape == x.shape
    with pytest.raises(Error):
        run_op("Dropout", [x, np.float32(0.5), np.bool_(True)], constants=(1, 2))


# Expand, Tile


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((3, 1), (2, 3, 4)),
        ((1,), (5,)),
        ((), (2, 2)),
        ((2, 3), (1,)),
        ((1, 300), (200, 300)),
        ((300, 1), (300, 200)),
        ((0, 1), (0, 7)),
        ((1,) * 8, (2,) * 8),
    ],
)
def test_expand(shape: tuple[int, ...], target: tuple[int, ...], dtype: str) -> None:
    x = sample(shape, dtype)
    want = np.broadcast_to(x, np.broadcast_shapes(shape, target))
    got = move("Expand", [x, ints(*target)])
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("target", [(4,), (-1,), (1 << 40, 1 << 40, 3), (1,) * 9])
def test_expand_rejects(target: tuple[int, ...]) -> None:
    with pytest.raises(Error):
        move("Expand", [sample((3,)), ints(*target)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("repeats", [(1, 1, 1), (2, 3, 1), (1, 1, 5), (0, 1, 1), (3, 1, 2)])
def test_tile(repeats: tuple[int, ...], dtype: str) -> None:
    x = sample((2, 3, 4), dtype)
    np.testing.assert_array_equal(move("Tile", [x, ints(*repeats)]), np.tile(x, repeats))


def test_tile_rank_8() -> None:
    x = sample((2,) * 8)
    repeats = (2, 1, 2, 1, 3, 1, 1, 2)
    np.testing.assert_array_equal(move("Tile", [x, ints(*repeats)]), np.tile(x, repeats))


@pytest.mark.parametrize("repeats", [(2,), (-1, 1), (1 << 62, 1), (1 << 30, 1 << 30)])
def test_tile_rejects(repeats: tuple[int, ...]) -> None:
    with pytest.raises(Error):
        move("Tile", [sample((2, 3)), ints(*repeats)])


# Transpose and its kin


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("shape", "perm"),
    [
        ((2, 19, 33), (0, 2, 1)),
        ((1, 64, 20, 20), (0, 2, 3, 1)),
        ((1, 20, 20, 64), (0, 3, 1, 2)),
        ((2, 3, 40, 40), (0, 2, 3, 1)),
        ((2, 40, 40, 3), (0, 3, 1, 2)),
        ((2, 16, 4, 32), (0, 2, 1, 3)),
        ((2, 16, 4, 32), (0, 2, 3, 1)),
        ((300, 301), (1, 0)),
        ((5, 7, 300, 2), (2, 1, 0, 3)),
        ((3, 1, 4), (0, 2, 1)),
        ((0, 3), (1, 0)),
        ((), ()),
        ((2, 1, 3, 2, 1, 2, 3, 2), (7, 5, 3, 1, 0, 2, 4, 6)),
    ],
)
def test_transpose(
    shape: tuple[int, ...], perm: tuple[int, ...], dtype: str, threads: int, isa: str
) -> None:
    x = sample(shape, dtype)
    got = move("Transpose", [x], {"perm": list(perm)}, isa=isa, threads=threads)
    np.testing.assert_array_equal(got, x.transpose(perm))


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_edges(dtype: str, isa: str) -> None:
    for rows in [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33]:
        for cols in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33]:
            x = sample((rows, cols), dtype, rows * 100 + cols)
            got = move("Transpose", [x], {"perm": [1, 0]}, isa=isa)
            np.testing.assert_array_equal(got, x.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("pixels", [511, 512, 530, 70001])
def test_transpose_channels(pixels: int, channels: int, dtype: str, isa: str) -> None:
    planes = sample((2, channels, pixels), dtype)
    pixel_major = np.ascontiguousarray(planes.transpose(0, 2, 1))
    for threads in (1, 2):
        options = {"isa": isa, "threads": threads}
        got = move("Transpose", [planes], {"perm": [0, 2, 1]}, **options)
        np.testing.assert_array_equal(got, pixel_major)
        got = move("Transpose", [pixel_major], {"perm": [0, 2, 1]}, **options)
        np.testing.assert_array_equal(got, planes)


@few
@given(st.data())
def test_transpose_any(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), max_size=6)))
    perm = data.draw(st.permutations(range(len(shape))))
    x = sample(shape, data.draw(st.sampled_from(DTYPES)))
    got = move("Transpose", [x], {"perm": list(perm)})
    np.testing.assert_array_equal(got, x.transpose(perm))


def test_transpose_reverses_by_default() -> None:
    x = sample((2, 3, 4))
    np.testing.assert_array_equal(move("Transpose", [x]), x.T)


@pytest.mark.parametrize("perm", [[0, 0, 1], [0, 1], [0, 1, 3], [0, 1, -4], list(range(9))])
def test_transpose_rejects(perm: list[int]) -> None:
    with pytest.raises(Error):
        move("Transpose", [sample((2, 3, 4))], {"perm": perm})


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str, dtype: str) -> None:
    x = sample((2, 18, 5, 7), dtype)
    same_as_reference("DepthToSpace", [x], {"blocksize": 3, "mode": mode})


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_to_depth(mode: str) -> None:
    same_as_reference("SpaceToDepth", [sample((2, 3, 6, 8))], {"blocksize": 2, "mode": mode})


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.int4, np.complex64])
def test_types_without_arithmetic_move(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 7, (3, 4, 5)).astype(dtype)
    got = move("Transpose", [x], {"perm": [2, 0, 1]})
    np.testing.assert_array_equal(got, x.transpose(2, 0, 1))
    np.testing.assert_array_equal(move("Gather", [x, ints(2, 0)], {"axis": 1}), x[:, [2, 0]])
    for key, operands in (("NonZero", [x]), ("lepton.Elementwise", [x, x])):
        with pytest.raises(UnsupportedError):
            run_op(key, operands, {"program": "Add r0 r1"}, outputs=("int64",))


def test_complex_numbers_of_16_bytes_are_left_to_the_host() -> None:
    with pytest.raises(UnsupportedError):
        move("Transpose", [np.ones((2, 2), np.complex128)])


@pytest.mark.parametrize("blocksize", [0, -1, 5, 1 << 33])
def test_depth_to_space_rejects(blocksize: int) -> None:
    for key in ("DepthToSpace", "SpaceToDepth"):
        with pytest.raises(Error):
            move(key, [sample((1, 4, 4, 4))], {"blocksize": blocksize})


# Concat, Split


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_concat(axis: int, dtype: str) -> None:
    pieces = []
    for i, size in enumerate([3, 1, 0, 4]):
        shape = [2, 5, 6]
        shape[axis] = size
        pieces.append(sample(tuple(shape), dtype, i))
    got = move("Concat", list(pieces), {"axis": axis})
    np.testing.assert_array_equal(got, np.concatenate(pieces, axis))


def test_concat_large_and_single() -> None:
    a, b = sample((3, 70000)), sample((3, 60001), seed=1)
    got = move("Concat", [a, b], {"axis": 1}, threads=2)
    np.testing.assert_array_equal(got, np.concatenate([a, b], 1))
    np.testing.assert_array_equal(move("Concat", [a], {"axis": 0}), a)


def test_concat_rejects() -> None:
    x = sample((2, 3))
    for other, axis in [((2, 4), 0), ((2,), 0), ((2, 3), 2), ((2, 3), -3)]:
        with pytest.raises(Error):
            move("Concat", [x, sample(other)], {"axis": axis})
    with pytest.raises(Error):
        move("Concat", [x, x])
    with pytest.raises(Error):
        move("Concat", [x, x.astype(np.int32)], {"axis": 0})


def split(x: Array, n: int, sizes: Array | None, attrs: dict[str, Any]) -> list[Array]:
    return run_op("Split", [x] if sizes is None else [x, sizes], attrs, outputs=(str(x.dtype),) * n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_split_sizes(axis: int, dtype: str) -> None:
    x = sample((7, 7, 7), dtype)
    for sizes in [(3, 4), (0, 7), (1, 2, 3, 1), (7,)]:
        got = split(x, len(sizes), ints(*sizes), {"axis": axis})
        want = np.split(x, np.cumsum(sizes)[:-1], axis)
        for a, b in zip(got, want):
            np.testing.assert_array_equal(a, b)


def test_split_even() -> None:
    x = sample((7, 4))
    for n in (1, 2, 3, 4, 7):
        got = split(x, n, None, {"num_outputs": n})
        size = -(-7 // n)
        want = np.split(x, [size * i for i in range(1, n)])
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("sizes", [(3, 3), (8, -1), (7,), (1 << 62, 1 << 62)])
def test_split_rejects(sizes: tuple[int, ...]) -> None:
    with pytest.raises(Error):
        split(sample((7, 2)), 2, ints(*sizes), {})


def test_split_rejects_too_many() -> None:
    with pytest.raises(Error):
        split(sample((2,)), 4, None, {"num_outputs": 4})
    with pytest.raises(Error):
        split(sample((4,)), 2, None, {"num_outputs": 3})


# Slice


@few
@given(st.data())
def test_slice_any(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=4)))
    axes = data.draw(st.permutations(range(len(shape))))
    axes = axes[: data.draw(st.integers(0, len(shape)))]
    position = st.one_of(
        st.integers(-9, 9), st.sampled_from([-(1 << 63), (1 << 63) - 1, (1 << 31) - 1])
    )
    starts = [data.draw(position) for _ in axes]
    ends = [data.draw(position) for _ in axes]
    pace = st.sampled_from([1, 1, 2, 3, -1, -2, 100, -(1 << 63), (1 << 63) - 1])
    steps = [data.draw(pace) for _ in axes]
    x = sample(shape, data.draw(st.sampled_from(DTYPES)))
    index = [slice(None)] * len(shape)
    for a, b, e, s in zip(axes, starts, ends, steps):
        # Going backwards, ONNX clamps a start before the first element to it; NumPy gives nothing.
        index[a] = slice(max(b, -shape[a]) if s < 0 else b, e, s)
    signed = [a - len(shape) if data.draw(st.booleans()) else a for a in axes]
    got = move("Slice", [x, ints(*starts), ints(*ends), ints(*signed), ints(*steps)])
    np.testing.assert_array_equal(got, x[tuple(index)])


def test_slice_defaults_and_int32() -> None:
    x = sample((6, 7))
    got = move("Slice", [x, np.array([1, 2], np.int32), np.array([5, -1], np.int32)])
    np.testing.assert_array_equal(got, x[1:5, 2:-1])


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ((0,), (1,), (2,), (1,)),
        ((0, 0), (1, 1), (0, 0), (1, 1)),
        ((0,), (1,), (0,), (0,)),
        ((0,), (1, 2), (0,), (1,)),
        ((0,), (1,), (0, 1), (1,)),
        ((0,), (1,), (-3,), (1,)),
    ],
)
def test_slice_rejects(
    starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    with pytest.raises(Error):
        move("Slice", [sample((4, 4)), ints(*starts), ints(*ends), ints(*axes), ints(*steps)])


# Pad


@few
@given(st.data())
def test_pad_any(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    pads = [(data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))) for _ in shape]
    dtype = data.draw(st.sampled_from(DTYPES))
    x = sample(shape, dtype)
    value = np.array(7, dtype)
    flat = [p[0] for p in pads] + [p[1] for p in pads]
    got = move("Pad", [x, ints(*flat), value], {"mode": mode})
    extra: dict[str, Any] = {"constant_values": value} if mode == "constant" else {}
    np.testing.assert_array_equal(got, np.pad(x, pads, mode, **extra))  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pads", [(-1, 2, 0, -2), (5, 0, -4, 0), (-3, 0, 1, 0), (0, -2, 0, -1)])
def test_pad_negative(pads: tuple[int, ...], dtype: str) -> None:
    x = sample((3, 4), dtype)
    big = np.pad(x, [(max(0, pads[0]), max(0, pads[2])), (max(0, pads[1]), max(0, pads[3]))])
    want = big[
        max(0, -pads[0]) : big.shape[0] - max(0, -pads[2]),
        max(0, -pads[1]) : big.shape[1] - max(0, -pads[3]),
    ]
    np.testing.assert_array_equal(move("Pad", [x, ints(*pads)]), want)


def test_pad_axes() -> None:
    x = sample((2, 3, 4))
    got = move("Pad", [x, ints(1, 2, 3, 0), None, ints(-1, 0)], {"mode": "edge"})
    np.testing.assert_array_equal(got, np.pad(x, [(2, 0), (0, 0), (1, 3)], "edge"))


@pytest.mark.parametrize(
    ("pads", "axes", "mode"),
    [
        ((1, 1), None, "constant"),
        ((1 << 62, 0, 0, 0), None, "constant"),
        ((-2, 0, -2, 0), None, "constant"),
        ((1 << 39, 0, 1 << 39, 1 << 39), None, "edge"),
        ((1, 1), (2,), "constant"),
        ((1, 1, 1, 1), (0, -2), "constant"),
        ((-3, 0, 1, 0), None, "reflect"),
        ((0, 0, 0, 0), None, "mirror"),
    ],
)
def test_pad_rejects(pads: tuple[int, ...], axes: tuple[int, ...] | None, mode: str) -> None:
    with pytest.raises(Error):
        move(
            "Pad",
            [sample((3, 4)), ints(*pads), None, None if axes is None else ints(*axes)],
            {"mode": mode},
        )


# Gather, Scatter


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int, index_dtype: Any, dtype: str, rng: np.random.Generator) -> None:
    x = sample((4, 5, 6), dtype)
    for shape in [(), (3,), (2, 3), (0,)]:
        indices = rng.integers(-4, 4, shape).astype(index_dtype)
        got = move("Gather", [x, indices], {"axis": axis})
        np.testing.assert_array_equal(got, np.take(x, indices, axis))


def test_gather_threads(rng: np.random.Generator) -> None:
    x = sample((1000, 300))
    indices = rng.integers(0, 1000, 700)
    got = move("Gather", [x, indices], threads=2)
    np.testing.assert_array_equal(got, x[indices])


@pytest.mark.parametrize("index", [4, -5, 1 << 62, -(1 << 63)])
def test_gather_range(index: int) -> None:
    x = sample((4, 4))
    with pytest.raises(Error, match="range"):
        move("Gather", [x, ints(0, index)])
    with pytest.raises(Error, match="range"):
        move("GatherElements", [x, ints(0, index, 0, 0).reshape(1, 4)])
    with pytest.raises(Error, match="range"):
        move("GatherND", [x, ints(0, index).reshape(1, 2)])
    with pytest.raises(Error, match="range"):
        move("ScatterElements", [x, ints(0, index).reshape(1, 2), sample((1, 2))])
    with pytest.raises(Error, match="range"):
        move("ScatterND", [x, ints(index).reshape(1, 1), sample((1, 4))])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis: int, dtype: str, rng: np.random.Generator) -> None:
    x = sample((4, 5, 6), dtype)
    shape = [4, 5, 6]
    shape[axis] = 9
    indices = rng.integers(-4, 4, shape)
    np.testing.assert_array_equal(
        move("GatherElements", [x, indices], {"axis": axis}),
        np.take_along_axis(x, indices, axis),
    )
    small = rng.integers(0, 4, (2, 3, 2))
    got = move("GatherElements", [x, small], {"axis": axis})
    grid = list(np.indices(small.shape))
    grid[axis] = small
    np.testing.assert_array_equal(got, x[tuple(grid)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "shape", "depth"),
    [(0, (3,), 1), (0, (2, 3), 3), (1, (4, 2), 2), (1, (4,), 1), (2, (4, 5, 2), 1), (0, (0,), 2)],
)
def test_gather_nd(
    batch: int, shape: tuple[int, ...], depth: int, dtype: str, rng: np.random.Generator
) -> None:
    x = sample((4, 5, 6), dtype)
    indices = rng.integers(-4, 4, (*shape, depth))
    same_as_reference("GatherND", [x, indices], {"batch_dims": batch})


def test_gather_rejects() -> None:
    x = sample((4, 5))
    cases: list[tuple[str, list[Array], dict[str, Any]]] = [
        ("Gather", [x, ints(0)], {"axis": 2}),
        ("Gather", [x, np.zeros((1,) * 8, np.int64)], {}),
        ("Gather", [x, np.zeros(1, np.float32)], {}),
        ("GatherElements", [x, ints(0)], {}),
        ("GatherElements", [x, np.zeros((1, 6), np.int64)], {}),
        ("GatherND", [x, np.zeros((1, 3), np.int64)], {}),
        ("GatherND", [x, np.zeros((1, 1), np.int64)], {"batch_dims": 2}),
        ("GatherND", [x, np.zeros((1, 1), np.int64)], {"batch_dims": 1}),
        ("GatherND", [x, np.zeros((1, 1), np.int64)], {"batch_dims": -1}),
    ]
    for key, inputs, attrs in cases:
        with pytest.raises(Error):
            move(key, list(inputs), attrs)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint16", "int64"])
@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("axis", [0, -1])
def test_scatter_elements(reduction: str, axis: int, dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 9, (4, 5, 6)).astype(dtype)
    updates = rng.integers(0, 9, (3, 2, 4)).astype(dtype)
    high = x.shape[axis]
    indices = rng.integers(-high, high, updates.shape)
    if reduction == "none":  # duplicates have no defined result
        rest = [n for i, n in enumerate(updates.shape) if i != axis % 3]
        indices = np.moveaxis(
            np.stack(
                [rng.permutation(high)[: updates.shape[axis]] for _ in range(int(np.prod(rest)))]
            ).reshape(*rest, -1),
            -1,
            axis,
        )
    with np.errstate(over="ignore"):
        same_as_reference(
            "ScatterElements", [x, indices, updates], {"axis": axis, "reduction": reduction}
        )


@pytest.mark.parametrize("dtype", ["bool", "float16", "float64", "uint8"])
def test_scatter_replaces_any_dtype(dtype: str) -> None:
    x, updates = sample((4, 3), dtype), sample((2, 3), dtype, 1)
    got = move("ScatterND", [x, ints(3, -4).reshape(2, 1), updates])
    want = x.copy()
    want[[3, 0]] = updates
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scatter_nd(reduction: str, depth: int, rng: np.random.Generator) -> None:
    x = rng.integers(0, 9, (4, 5, 6)).astype(np.float32)
    tuples = np.stack(np.unravel_index(rng.permutation(4**depth)[:3], (4,) * depth), -1)
    updates = rng.integers(0, 9, (3, *x.shape[depth:])).astype(np.float32)
    same_as_reference("ScatterND", [x, tuples, updates], {"reduction": reduction})


def test_scatter_rejects() -> None:
    x = sample((4, 5))
    zero = np.zeros((1, 1), np.int64)
    one = sample((1, 1))
    cases: list[tuple[str, list[Array], dict[str, Any]]] = [
        ("ScatterElements", [x, zero, one], {"axis": 2}),
        ("ScatterElements", [x, zero, sample((1, 2))], {}),
        ("ScatterElements", [x, np.zeros((1, 6), np.int64), sample((1, 6))], {}),
        ("ScatterElements", [x, zero, one], {"reduction": "sum"}),
        ("ScatterND", [x, np.zeros((1, 3), np.int64), sample((1,))], {}),
        ("ScatterND", [x, zero, sample((1, 4))], {}),
    ]
    for key, inputs, attrs in cases:
        with pytest.raises(Error):
            move(key, list(inputs), attrs)
