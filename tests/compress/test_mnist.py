"""A network trained on MNIST keeps its accuracy in int8, and runs on integers alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lepton_rt

DATA = Path(__file__).parents[3] / "shared" / "data" / "mnist"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder ../shared/data/mnist")
def test_mnist_accuracy_before_and_after(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from lepton_rt.cli.demo import network
    from lepton_rt.cli.demo.digits import load_digits

    digits = load_digits(DATA, seed=0)
    assert len(digits.train_images) == 8000
    assert len(digits.test_images) == 2000
    model = network.train(digits.train_images, digits.train_labels, 6, 0, lambda *_: None)
    network.export(model, tmp_path / "mnist.onnx")
    calibration = np.split(digits.train_images[:512], 8)
    made = lepton_rt.quantize(tmp_path / "mnist.onnx", calibration, progress=False)

    def accuracy(session: lepton_rt.Session) -> float:
        answers = session.run(digits.test_images).argmax(1)
        return float(np.mean(answers == digits.test_labels))

    integers = lepton_rt.Session(made)
    before, after = accuracy(lepton_rt.Session(tmp_path / "mnist.onnx")), accuracy(integers)
    assert before >= 0.98
    assert abs(before - after) <= 0.003
    steps = list(integers.explain())
    layers = [i for i, step in enumerate(steps) if "Conv" in step.op or "MatMul" in step.op]
    assert len(layers) == 6
    for step in steps[layers[0] : layers[-1]]:
        assert set(step.dtypes) <= {"uint8", "int8"}, step
        assert not step.is_host
        assert step.op != "Transpose"
