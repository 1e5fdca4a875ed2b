"""Numbers that an engine would take for others, or for places outside of a table, are refused before it sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.graph_task import GraphPipeline
from wanc.runtime.interface import InputError

from ..conftest import Wanc

ENGINES = ("onnxruntime", "openvino")
TABLE = np.arange(60, dtype=np.float32).reshape(30, 2)
GRAPH = """\
g (int64[n] ids, int32[n] kinds, int64[n] counts) => (float[n, 2] rows, float[n] kind, int64[n] doubled) {
  behind = Constant <value_ints = [0]> ()  ids_2 = Unsqueeze (ids, behind)  ids_3 = Squeeze (ids_2, behind)
  rows = Gather (table, ids_3)  kind = Gather (table_of_kinds, kinds)  doubled = Add (counts, counts)
}
"""


def write(folder: Path) -> Path:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {GRAPH}')
    proto.graph.initializer.append(numpy_helper.from_array(TABLE, "table"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([5, 6, 7], np.float32), "table_of_kinds"))
    onnx.save(proto, folder / "m.onnx")
    (folder / "r.yaml").write_text("wanc: 1\nname: rows\nmodel: {onnx: m.onnx, example: {n: 4}}\n")
    return folder / "r.yaml"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rows")
    recipe = write(folder)
    loaded = {engine: load(recipe, [f"engine.kind={engine}", f"name={engine}"])[0] for engine in ENGINES}
    return {engine: build(entry, folder / "out", progress=False).bundle for engine, entry in loaded.items()}


def feeds(**changed: Any) -> dict[str, np.ndarray[Any, Any]]:
    plain: dict[str, np.ndarray[Any, Any]] = {
        "ids": np.array([0, 29, -30, -1]), "kinds": np.array([0, 2, -3, 1], np.int32), "counts": np.arange(4)
    }  # fmt: skip
    return {name: np.array(changed.get(name, array), array.dtype) for name, array in plain.items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_what_fits_is_taken(bundles: dict[str, Path], engine: str) -> None:
    outputs = GraphPipeline.open(bundles[engine]).run(feeds())
    np.testing.assert_array_equal(outputs["rows"], TABLE[[0, 29, 0, 29]])
    np.testing.assert_array_equal(outputs["kind"], [5, 7, 5, 6])
    np.testing.assert_array_equal(outputs["doubled"], [0, 2, 4, 6])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": [0, 1, 30, 2]}, "the input 'ids' holds 30 at [2], and numbers from -30 to 29 were expected"),
        ({"ids": [-31, 1, 2, 3]}, "the input 'ids' holds -31 at [0], and numbers from -30 to 29 were expected"),
        ({"ids": [0, 2**40, 1, 1]}, f"the input 'ids' holds {2**40} at [1], and numbers from -30 to 29 were expected"),
        ({"kinds": [0, 1, 2, 3]}, "the input 'kinds' holds 3 at [3], and numbers from -3 to 2 were expected"),
    ],
)
def test_what_lies_outside_of_a_table_is_refused(
    bundles: dict[str, Path], engine: str, changed: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        GraphPipeline.open(bundles[engine]).run(feeds(**changed))
    assert caught.value.message == message


def test_the_file_of_the_inputs_is_named(bundles: dict[str, Path], wanc: Wanc, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **feeds(ids=[0, 1, 2, 31]))
    finished = wanc("run", bundles["openvino"], "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert (finished.code, finished.out) == (65, "")
    assert finished.err == (
        f"error: {tmp_path / 'in.npz'}: the input 'ids' holds 31 at [3], and numbers from -30 to 29 were expected\n"
    )
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**62])
def test_what_openvino_would_cut_to_32_bits(bundles: dict[str, Path], number: int) -> None:
    given = feeds(counts=[0, number, 1, 2])
    with pytest.raises(InputError) as caught:
        GraphPipeline.open(bundles["openvino"]).run(given)
    assert caught.value.message == (
        f"the input 'counts' holds {number}, and openvino takes integers from -2147483648 to 2147483647"
    )
    outputs = GraphPipeline.open(bundles["onnxruntime"]).run(given)
    np.testing.assert_array_equal(outputs["doubled"], given["counts"] * 2)


def test_an_empty_input(bundles: dict[str, Path]) -> None:
    """OpenVINO gives what it gave before; ONNX Runtime gives what there is: nothing."""
    empty = {name: array[:0] for name, array in feeds().items()}
    pipeline = GraphPipeline.open(bundles["openvino"])
    pipeline.run(feeds())
    with pytest.raises(InputError, match=r"the input '\w+' is int\d+ \[0\], and openvino gives no results"):
        pipeline.run(empty)
    outputs = GraphPipeline.open(bundles["onnxruntime"]).run(empty)
    assert {name: array.shape for name, array in outputs.items()} == {"rows": (0, 2), "kind": (0,), "doubled": (0,)}
