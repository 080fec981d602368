"""A network trained on MNIST keeps its accuracy in int8, and runs on integers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton_rt

DATA = Path(__file__).parents[3] / "shared" / "data" / "mnist"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The trained network as a file, and the images."""
    if not DATA.is_dir():
        pytest.skip("needs the folder ../shared/data/mnist")
    pytest.importorskip("torch")
    from lepton_rt.cli.demo import network
    from lepton_rt.cli.demo.digits import load_digits

    digits = load_digits(DATA, seed=0)
    assert len(digits.train_images) == 8000
    assert len(digits.test_images) == 2000
    model = network.train(digits.train_images, digits.train_labels, 6, 0, lambda *_: None)
    path = tmp_path_factory.mktemp("mnist") / "mnist.onnx"
    network.export(model, path)
    return path, digits


def accuracy(session: lepton_rt.Session, digits: Any) -> float:
    answers = session.run(digits.test_images).argmax(1)
    return float(np.mean(answers == digits.test_labels))


def test_mnist_accuracy_before_and_after(trained: tuple[Path, Any]) -> None:
    path, digits = trained
    calibration = np.split(digits.train_images[:512], 8)
    made = lepton_rt.quantize(path, calibration, progress=False)

    integers = lepton_rt.Session(made)
    before, after = accuracy(lepton_rt.Session(path), digits), accuracy(integers, digits)
    assert before >= 0.98
    assert abs(before - after) <= 0.003
    steps = list(integers.explain())
    layers = [i for i, step in enumerate(steps) if "Conv" in step.op or "MatMul" in step.op]
    assert len(layers) == 6
    for step in steps[layers[0] : layers[-1]]:
        assert set(step.dtypes) <= {"uint8", "int8"}, step
        assert not step.is_host
        assert step.op != "Transpose"


def test_pruned_mnist_keeps_most_of_its_accuracy(trained: tuple[Path, Any]) -> None:
    """A tenth of the blocks of the inner layers, in one shot, then int8."""
    path, digits = trained
    pruned = lepton_rt.prune(path, 0.1, block=(8, 4))
    assert len(pruned.layers) == 4
    assert all(abs(layer.sparsity - 0.1) < 0.02 for layer in pruned.layers)
    before, after = (accuracy(lepton_rt.Session(m), digits) for m in (path, pruned))
    calibration = np.split(digits.train_images[:512], 8)
    integers = lepton_rt.Session(lepton_rt.quantize(pruned, calibration, progress=False))
    assert after >= before - 0.03
    assert abs(accuracy(integers, digits) - after) <= 0.005


def test_bfloat16_weights_keep_the_answers(trained: tuple[Path, Any]) -> None:
    path, digits = trained
    session = lepton_rt.Session(path, precision="bf16")
    assert sum("bf16" in step.kernel for step in session.explain()) >= 3
    want = lepton_rt.Session(path).run(digits.test_images)
    got = session.run(digits.test_images)
    # A few layers of weights that are off by 2^-8 at most, by 2^-9.2 on average.
    assert np.linalg.norm(got - want) <= 2**-8 * np.linalg.norm(want)
    assert (got.argmax(1) == want.argmax(1)).mean() >= 0.999
