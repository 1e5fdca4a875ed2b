"""A lowered graph on the host: against float32 and ONNX Runtime, with weights in files, in little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.host.lowered import HostGraph
from wanc.compiler.program.graph_file import save

from ..narrowed import narrowed, quantised, stored
from ..passes.builder import assert_close, parse
from ..transformer import FloatDenoiser, make, sample
from ..weighted import weighted

Array = np.ndarray[Any, Any]
BFLOAT16_DB = 38.0


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> FloatDenoiser:
    return make(tmp_path_factory.mktemp("denoiser"))


def executed(parts: Mapping[str, ir.Model], denoiser: FloatDenoiser, folder: Path, feeds: Mapping[str, Array]) -> Array:
    """What the parts compute one after the other, each from its file."""
    values = dict(feeds)
    for name, model in parts.items():
        path = folder / f"{name}.onnx"
        save(stored(model, denoiser.weights, folder, name), path)
        graph = HostGraph(path, folder)
        taken = [str(value.name) for value in model.graph.inputs]
        values |= graph.run(
            {key: np.array(values["latents"].shape) if "shape" in key else values[key] for key in taken}
        )
    return values["velocity"]


def decibels(actual: Array, expected: Array) -> float:
    error = np.linalg.norm((actual - expected).astype(np.float64)) / np.linalg.norm(expected.astype(np.float64))
    return float(-20 * np.log10(error))


def test_a_step_in_float32(denoiser: FloatDenoiser, tmp_path: Path) -> None:
    feeds = sample(0)
    actual = executed(denoiser.parts(), denoiser, tmp_path, feeds)
    assert_close(actual, denoiser.expected(feeds), 1e-5)


@pytest.mark.parametrize("dtype", [ir.DataType.BFLOAT16, ir.DataType.FLOAT16])
def test_a_step_with_products_in_16_bits(denoiser: FloatDenoiser, dtype: ir.DataType, tmp_path: Path) -> None:
    """And norms, sums and modulation in float32; what belongs to the timestep as well, which is tabulated."""
    feeds, parts = sample(0), denoiser.parts()
    narrow = {name: model if name == "time" else narrowed(model, dtype) for name, model in parts.items()}
    found = decibels(executed(narrow, denoiser, tmp_path, feeds), denoiser.expected(feeds))
    assert BFLOAT16_DB <= found < 100


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_rounded_scales_cost_little(denoiser: FloatDenoiser, scheme: str, tmp_path: Path) -> None:
    """A whole graph with Q/DQ, computed in float32 and lowered to bfloat16."""
    feeds = sample(1)
    model = quantised(denoiser.whole(), denoiser.weights, tmp_path, feeds, scheme)
    found = {
        name: HostGraph(stored(graph, denoiser.weights, tmp_path, name), tmp_path).run(feeds)["velocity"]
        for name, graph in {"float": model, "narrow": narrowed(model)}.items()
    }
    exact = denoiser.expected(feeds)
    in_float, narrow = (decibels(found[name], exact) for name in ("float", "narrow"))
    assert 15 < in_float < 60
    assert narrow > in_float - 2


def test_an_input_of_another_type_is_refused() -> None:
    graph = HostGraph(parse("g (bfloat16[2] x) => (bfloat16[2] y) { y = Identity (x) }"), Path())
    with pytest.raises(ValueError, match="input x is float32, where the graph takes bfloat16"):
        graph.run({"x": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="input x is missing"):
        graph.run({})


def test_a_graph_in_a_node_sees_the_values_around_it() -> None:
    """Which are kept until then, though no node takes them."""
    text = """g (float[2] x, bool c) => (float[2] y) {
        a = Add (x, x)  b = Mul (a, a)
        y = If (c) <then_branch = t () => (float[2] u) { u = Add (b, x) },
                    else_branch = e () => (float[2] v) { v = Neg (a) }>
    }"""
    graph, x = HostGraph(parse(text, shapes=False), Path()), np.array([1, 2], np.float32)
    np.testing.assert_array_equal(graph.run({"x": x, "c": np.array(True)})["y"], [5, 18])
    np.testing.assert_array_equal(graph.run({"x": x, "c": np.array(False)})["y"], [-2, -4])


def test_an_input_and_a_weight_may_be_given_as_they_are() -> None:
    graph = HostGraph(parse("g (float[2] x) => (float[2] x, float[2] y) { y = Neg (x)  z = Neg (y) }"), Path())
    given = {"x": np.array([1, 2], np.float32)}
    for _ in range(2):
        outputs = graph.run(given)
        assert list(outputs) == ["x", "y"]
        np.testing.assert_array_equal(outputs["x"], given["x"])


LAYERS, WIDTH = 24, 2048
MEASURE = """
import re, resource, sys
from pathlib import Path
import numpy as np
from wanc.compiler.host.lowered import HostGraph
folder = Path(sys.argv[1])
graph, x = HostGraph(folder / "g.onnx", folder), np.ones((1, 256, 2048), np.float32)
x @ np.ones((2048, 2048), np.float32)  # BLAS takes its buffers
taken = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (taken + int(sys.argv[2]) * 2**20,) * 2)
assert np.isfinite(graph.run({"x0": x})["x24"]).all()
"""


def test_memory_has_one_weight_at_a_time(tmp_path: Path) -> None:
    """Of 24 weights, 16 MiB each in float32, and of as many values of 2 MiB."""
    lines = (
        f"c{layer} = Cast <to = 16> (x{layer})  m{layer} = MatMul (c{layer}, w{layer})"
        f"  n{layer} = Cast <to = 1> (m{layer})  x{layer + 1} = Tanh (n{layer})"
        for layer in range(LAYERS)
    )
    weights = [f"w{layer}" for layer in range(LAYERS)]
    header = ", ".join(f"bfloat16[{WIDTH}, {WIDTH}] {name}" for name in weights)
    text = f"g (float[1, 256, {WIDTH}] x0, {header}) => (float[1, 256, {WIDTH}] x{LAYERS}) {{ {' '.join(lines)} }}"
    made = weighted(parse(text, *weights), tmp_path)
    save(stored(made.model, made.files, tmp_path, "g"), tmp_path / "g.onnx")

    def run(mebibytes: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", MEASURE, str(tmp_path), str(mebibytes)]
        return subprocess.run(command, capture_output=True, text=True)

    assert run(100).returncode == 0, run(100).stderr
    assert "MemoryError" in run(20).stderr
