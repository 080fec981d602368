"""NonMaxSuppression and GridSample against ONNX Runtime, on random data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
from onnx import helper

import lepton_rt
from compiler.onnx_models import make_model, normal, ort_run
from harness import run_op
from lepton_rt.errors import Error, InputError


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize(("most", "overlap", "score"), [(5, 0.3, 0.2), (100, 0.6, None), (0, 0, 0)])
def test_non_max_suppression(center: int, most: int, overlap: float, score: float | None) -> None:
    rng = np.random.default_rng(most)
    inputs: dict[str, Any] = {
        "boxes": rng.random((2, 40, 4)).astype(np.float32),
        "scores": rng.random((2, 3, 40)).astype(np.float32),
        "most": np.array([most]),
        "overlap": np.array([overlap], np.float32),
    }
    if score is not None:
        inputs["score"] = np.array([score], np.float32)
    node = helper.make_node("NonMaxSuppression", list(inputs), ["y"], center_point_box=center)
    model = make_model([node], inputs, ["y"], dtypes={"y": np.int64})
    session = lepton_rt.Session(model)
    assert not session.explain().host_steps
    np.testing.assert_array_equal(session.run(inputs), ort_run(model, inputs)[0])


def test_boxes_and_scores_must_fit() -> None:
    with pytest.raises(InputError, match="do not fit"):
        run_op("NonMaxSuppression", [normal(1, 5, 4), normal(1, 2, 6)], outputs=("int64",))


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    inputs = {"x": normal(2, 3, 5, 7), "grid": normal(2, 4, 6, 2, seed=1) * np.float32(1.2)}
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": align}
    model = make_model(
        [helper.make_node("GridSample", list(inputs), ["y"], **attrs)], inputs, ["y"]
    )
    session = lepton_rt.Session(model, threads=2)
    assert not session.explain().host_steps
    np.testing.assert_allclose(session.run(inputs), ort_run(model, inputs)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grids_may_point_anywhere(padding: str) -> None:
    grid = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e9], np.float32)
    grid = np.stack([grid, grid[::-1]], -1).reshape(1, 1, 6, 2)
    for x in (normal(1, 2, 4, 4), normal(1, 2, 1, 1)):
        for align in (0, 1):
            attrs = {"padding_mode": padding, "align_corners": align}
            (y,) = run_op("GridSample", [x, grid], attrs)
            assert np.isfinite(y).all()


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(Error):
        run_op(
            "GridSample", [np.zeros((1, 2, 0, 4), np.float32), np.zeros((1, 1, 1, 2), np.float32)]
        )
