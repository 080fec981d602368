"""Resize against ONNX Runtime and the onnx reference evaluator, along any axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt.errors import Error
from onnx_oracle import run_onnx
from onnx_reference import reference

Array = npt.NDArray[Any]

COORDINATES = [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "asymmetric",
    "align_corners",
]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
EMPTY = np.zeros(0, np.float32)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def resize(
    x: Array,
    attrs: dict[str, Any],
    *,
    scales: Array | None = None,
    sizes: Any = None,
    roi: Array | None = None,
    constant: bool = True,
    **options: Any,
) -> Array:
    lengths = None if sizes is None else np.array(sizes, np.int64)
    return run_op(
        "Resize",
        [x, roi, scales, lengths],
        attrs,
        outputs=(str(x.dtype),),
        constants=(1, 2, 3) if constant else (),
        **options,
    )[0]


def onnxruntime_resize(x: Array, attrs: dict[str, Any], scales: Array, sizes: Any) -> Array:
    if sizes is None:
        return run_onnx("Resize", [x, None, scales], attrs, opset=19)
    return run_onnx("Resize", [x, None, None, np.array(sizes, np.int64)], attrs, opset=19)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("nearest", NEAREST)
@pytest.mark.parametrize("out", [(2, 3, 14, 22), (2, 3, 5, 4), (2, 3, 1, 11), (2, 3, 10, 33)])
def test_nearest(coordinates: str, nearest: str, out: tuple[int, ...]) -> None:
    x = np.arange(2 * 3 * 7 * 11, dtype=np.float32).reshape(2, 3, 7, 11)
    attrs = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    got = resize(x, attrs, sizes=out)
    np.testing.assert_array_equal(got, onnxruntime_resize(x, attrs, EMPTY, out))
    nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    last = resize(nhwc, attrs, sizes=(out[0], out[2], out[3], out[1]))
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), got)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float16", "bool", "float64", "int64"])
def test_nearest_dtypes(dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 2, (2, 5, 6, 3)).astype(dtype)
    attrs = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    got = resize(x, attrs, scales=floats(1, 2, 3, 1), threads=2)
    np.testing.assert_array_equal(got, x.repeat(2, 1).repeat(3, 2))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("factor", [2, 3])
def test_nearest_repeats_last_axis(dtype: str, factor: int, rng: np.random.Generator) -> None:
    x = rng.integers(0, 200, (2, 3, 4, 7)).astype(dtype)
    got = resize(x, {}, scales=floats(1, 1, 2, factor))
    np.testing.assert_array_equal(got, x.repeat(2, 2).repeat(factor, 3))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        ((2, 3, 7, 11), (1, 1, 2, 3)),
        ((1, 2, 13, 9), (1, 1, 0.6, 0.5)),
        ((1, 2, 6, 20), (1, 1, 1, 1.7)),
        ((1, 2, 6, 20), (1, 1, 2.5, 1)),
        ((2, 1, 1, 4), (1, 1, 3, 0.25)),
    ],
)
def test_interpolation(
    mode: str, coordinates: str, shape: tuple[int, ...], scales: tuple[float, ...], isa: str
) -> None:
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    got = resize(x, attrs, scales=floats(*scales), isa=isa)
    want = onnxruntime_resize(x, attrs, floats(*scales), None)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    last_scales = floats(scales[0], scales[2], scales[3], scales[1])
    last = resize(nhwc, attrs, scales=last_scales, isa=isa, threads=2)
    np.testing.assert_allclose(last.transpose(0, 3, 1, 2), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude_outside", [0, 1])
@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        ((9,), (2.3,)),
        ((3, 4, 5), (2, 0.5, 1.5)),
        ((3, 4, 5), (1.5, 1, 2)),
        ((2, 3, 4, 5, 2), (1, 2, 1.5, 0.8, 1)),
        ((4, 3), (2, 1)),
    ],
)
def test_interpolation_any_axes(
    mode: str, exclude_outside: int, shape: tuple[int, ...], scales: tuple[float, ...], isa: str
) -> None:
    x = np.random.default_rng(6).standard_normal(shape).astype(np.float32)
    attrs = {"mode": mode, "exclude_outside": exclude_outside if mode == "cubic" else 0}
    (want,) = reference("Resize", [x, EMPTY, floats(*scales)], attrs)
    got = resize(x, attrs, scales=floats(*scales), isa=isa)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_isas_agree_in_every_bit(rng: np.random.Generator, isa: str) -> None:
    x = rng.standard_normal((2, 19, 23, 13)).astype(np.float32)
    for mode in ("linear", "cubic"):
        for scales in (floats(1, 1.7, 2.1, 1), floats(1, 1, 1.3, 1.9)):
            got = resize(x, {"mode": mode}, scales=scales, isa=isa, threads=2)
            np.testing.assert_array_equal(
                got, resize(x, {"mode": mode}, scales=scales, isa="scalar")
            )


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_integers(dtype: str, mode: str, channels_last: bool, isa: str) -> None:
    info = np.iinfo(dtype)
    x = np.random.default_rng(7).integers(info.min, info.max + 1, (2, 6, 7, 9)).astype(dtype)
    scales = floats(1, 2, 1.5, 1) if channels_last else floats(1, 1, 2, 1.5)
    exact = resize(x.astype(np.float32), {"mode": mode}, scales=scales)
    got = resize(x, {"mode": mode}, scales=scales, isa=isa)
    np.testing.assert_array_equal(got, np.trunc(np.clip(exact, info.min, info.max)).astype(dtype))
    flat = np.full((1, 1, 5, 5), info.max, dtype)
    assert (resize(flat, {"mode": "linear"}, sizes=(1, 1, 13, 17)) == info.max).all()


def test_linear_uint8_as_onnxruntime() -> None:
    x = np.random.default_rng(8).integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)
    scales = floats(1, 1, 2, 2)  # weights are quarters: no rounding anywhere
    attrs = {"mode": "linear"}
    np.testing.assert_array_equal(
        resize(x, attrs, scales=scales), onnxruntime_resize(x, attrs, scales, None)
    )


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crop(mode: str) -> None:
    x = np.random.default_rng(9).standard_normal((1, 2, 6, 7)).astype(np.float32)
    attrs = {
        "mode": mode,
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": 5.0,
    }
    roi = floats(0, 0, -0.2, 0.3, 1, 1, 0.7, 1.4)
    sizes = np.array([1, 2, 9, 8], np.int64)
    (want,) = reference("Resize", [x, roi, EMPTY, sizes], attrs)
    got = resize(x, attrs, sizes=sizes, roi=roi)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert (got == 5).any()


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_axes_and_policy(policy: str, mode: str) -> None:
    x = np.random.default_rng(10).standard_normal((2, 6, 3, 7)).astype(np.float32)
    attrs = {"mode": mode, "axes": [-1, 1], "keep_aspect_ratio_policy": policy}
    sizes = np.array([10, 15], np.int64)
    in_order = {**attrs, "axes": [1, 3]}  # the only order the reference evaluator takes
    (want,) = reference("Resize", [x, None, None, sizes[::-1].copy()], in_order)
    got = resize(x, attrs, sizes=sizes)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_run_time_scales_and_identity(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 2, 4, 4)).astype(np.float32)
    got = resize(x, {}, scales=floats(1, 1, 2, 2), constant=False)
    np.testing.assert_array_equal(got, x.repeat(2, 2).repeat(2, 3))
    np.testing.assert_array_equal(resize(x, {"mode": "cubic"}, sizes=x.shape), x)
    assert resize(x, {}, sizes=(1, 2, 0, 4)).shape == (1, 2, 0, 4)


@pytest.mark.parametrize(
    ("attrs", "inputs"),
    [
        ({"mode": "area"}, {"sizes": (1, 1, 2, 2)}),
        ({"nearest_mode": "round"}, {"sizes": (1, 1, 2, 2)}),
        ({"coordinate_transformation_mode": "x"}, {"sizes": (1, 1, 2, 2)}),
        ({}, {}),
        ({}, {"sizes": (1, 2, 2)}),
        ({}, {"sizes": (1, 1, -2, 2)}),
        ({}, {"sizes": (1, 1, 1 << 39, 2)}),
        ({"mode": "linear"}, {"sizes": (1 << 20, 1 << 20, 1 << 20, 2)}),
        ({}, {"scales": floats(1, 1, 0, 2)}),
        ({}, {"scales": floats(1, 1, np.nan, 2)}),
        ({}, {"scales": floats(1, 1, np.inf, 2)}),
        ({}, {"scales": floats(1, 1, -1, 2)}),
        ({}, {"scales": floats(2, 2)}),
        ({"axes": [4]}, {"sizes": (2,)}),
        ({"axes": [1, -3]}, {"sizes": (2, 2)}),
        ({"coordinate_transformation_mode": "tf_crop_and_resize"}, {"sizes": (1, 1, 2, 2)}),
        ({"antialias": 1, "mode": "linear"}, {"sizes": (1, 1, 2, 2)}),
    ],
)
def test_rejects(attrs: dict[str, Any], inputs: dict[str, Any]) -> None:
    with pytest.raises(Error):
        resize(np.zeros((1, 1, 3, 3), np.float32), attrs, **inputs)


def test_rejects_empty_input() -> None:
    with pytest.raises(Error):
        resize(np.zeros((1, 0), np.float32), {"mode": "linear"}, sizes=(1, 4))


def test_survives_hostile_crop() -> None:
    x = np.ones((3, 4), np.float32)
    for bad in (np.nan, np.inf, -1e38):
        attrs = {"mode": "cubic", "coordinate_transformation_mode": "tf_crop_and_resize"}
        got = resize(x, attrs, sizes=(5, 5), roi=floats(bad, 0, 1, bad))
        assert got.shape == (5, 5)
