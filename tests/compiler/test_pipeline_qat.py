"""tiny-wan trained on with rounding, from its recipe: built as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.conftest import ROOT
from wanc.compiler.pipeline import BuildResult, build
from wanc.compiler.program.quant_table import FLOAT, QuantTable, table_file
from wanc.recipe.load import load
from wanc.runtime.model import HIGH, LOW
from wanc.runtime.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FEW = (
    "quantize.scheme=int4-weight",
    "quantize.calibrate.clips=4",
    "quantize.calibrate.timestep_bins=2",
    "sampling.steps=8",
)
TRAINED = ("quantize.method=qat", "quantize.train={rounds: 1, requests: 16, validation: 4}")


def built(name: str, tiny_bundle: Path, *overrides: str) -> BuildResult:
    """Beside `tiny_bundle`, whose graphs it takes from the store."""
    (loaded,) = load(ROOT / "recipes" / "tiny-wan-int8.yaml", [f"name={name}", *FEW, *overrides])
    return build(loaded, tiny_bundle.parents[1], progress=False)


@pytest.fixture(scope="module")
def results(tiny_bundle: Path) -> tuple[BuildResult, BuildResult]:
    """Without training and with."""
    return built("tiny-wan-ptq", tiny_bundle), built("tiny-wan-qat", tiny_bundle, *TRAINED)


def test_training_is_a_stage_behind_quantising(results: tuple[BuildResult, BuildResult]) -> None:
    names = [run.name for run in results[1].stages]
    expert = ["calibrate", "quantize", "train"]
    assert names[names.index("texts") + 1 : names.index("partition")] == expert * 2
    assert verify(results[1].bundle).ok


@pytest.mark.parametrize("component", [HIGH, LOW])
def test_its_table_says_how(results: tuple[BuildResult, BuildResult], component: str) -> None:
    ptq, qat = (QuantTable.read(result.bundle / table_file(component)) for result in results)
    assert (ptq.method, qat.method) == ("ptq", "qat")
    floats = [name for name, entry in qat.linears.items() if entry.scheme == FLOAT]
    assert floats == [name for name, entry in ptq.linears.items() if entry.scheme == FLOAT]
    before, after = (codes(result.bundle, component) for result in results)
    assert before.keys() == after.keys() and len(after) == len(qat.quantized)
    assert not [place for place, array in after.items() if np.array_equal(array, before[place])]


def codes(bundle: Path, component: str) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
    """The coded weights of a component's products, by graph and by what they give."""
    found: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
    for path in (bundle / "engines" / component).glob("*.onnx"):
        graph = onnx.load_model(path).graph
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "MatMulNBits":
                found[path.name, node.output[0]] = weights[node.input[1]]
    return found
