"""The back end `openvino`: it executes an IR, and looks at what the library itself would take without a word."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as operators

from wanc.runtime.backends.open import open_backend
from wanc.runtime.backends.openvino import FIRST, OpenVino
from wanc.runtime.errors import TargetError
from wanc.runtime.session import Session

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
COUNT = np.array([10], np.int64)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """`sum` = x + count, and `double` = 2 * x; x is float32 [rows, 3], count int64 [1]."""
    x = operators.parameter([-1, 3], np.float32)
    count = operators.parameter([1], np.int64)
    outputs = {
        "sum": operators.add(x, operators.convert(count, "f32")),
        "double": operators.multiply(x, operators.constant(2.0, np.float32)),
    }
    for name, node in {"x": x, "count": count, **outputs}.items():
        node.output(0).set_names({name})
    openvino.save_model(openvino.Model(list(outputs.values()), [x, count]), tmp_path / "main.s0.cpu.xml")
    return tmp_path / "main.s0.cpu.xml"


def test_the_engine_chooses_the_library_whatever_the_file_is_called(engine: Path) -> None:
    renamed = engine.rename(engine.with_name("step.onnx"))
    engine.with_suffix(".bin").rename(renamed.with_suffix(".bin"))
    backend = open_backend("openvino", renamed, threads=1)
    assert isinstance(backend, OpenVino)
    assert backend.outputs == ["sum", "double"]


def test_an_engine_that_nobody_knows_is_named(engine: Path) -> None:
    with pytest.raises(TargetError, match="tensorflow cannot load this engine"):
        Session("tensorflow", engine, threads=1)


def test_results_come_by_name(engine: Path) -> None:
    outputs = Session("openvino", engine, threads=1).run({"count": COUNT, "x": ROWS})
    np.testing.assert_array_equal(outputs["sum"], ROWS + 10)
    np.testing.assert_array_equal(outputs["double"], 2 * ROWS)


def test_arrays_that_lie_otherwise_in_memory_are_taken_as_what_they_are(engine: Path) -> None:
    turned = np.asfortranarray(ROWS)
    assert not turned.flags.c_contiguous
    outputs = Session("openvino", engine, threads=1).run({"x": turned, "count": COUNT})
    np.testing.assert_array_equal(outputs["double"], 2 * ROWS)


def test_a_result_stays_as_it_is_when_the_graph_runs_again(engine: Path) -> None:
    """What is kept from one step to the next must not be written over."""
    session = Session("openvino", engine, threads=1)
    first = session.run({"x": ROWS, "count": COUNT})["sum"]
    session.run({"x": ROWS * 7, "count": COUNT})
    np.testing.assert_array_equal(first, ROWS + 10)


@pytest.mark.parametrize(
    ("inputs", "cause"),
    [
        ({"x": ROWS}, "inputs ['x'] are given, ['count', 'x'] are needed"),
        ({"x": ROWS, "counts": COUNT}, "inputs ['counts', 'x'] are given, ['count', 'x'] are needed"),
        (
            {"x": ROWS, "count": COUNT, "y": ROWS},
            "inputs ['count', 'x', 'y'] are given, ['count', 'x'] are needed",
        ),
        ({"x": ROWS.astype(np.float64), "count": COUNT}, "the input x is float64, not float32"),
        ({"x": ROWS, "count": COUNT.astype(np.int32)}, "the input count is int32, not int64"),
    ],
    ids=["one missing", "a wrong name", "one too many", "float64", "int32"],
)
def test_inputs_that_are_not_the_graph_s_are_refused(engine: Path, inputs: dict[str, np.ndarray], cause: str) -> None:
    session = Session("openvino", engine, threads=1)
    with pytest.raises(TargetError) as caught:
        session.run(inputs)
    assert caught.value.message == "openvino cannot execute this graph on these inputs"
    assert caught.value.where == str(engine)
    assert str(caught.value.__cause__) == cause


def test_a_wrong_shape_is_refused(engine: Path) -> None:
    with pytest.raises(TargetError, match="openvino cannot execute this graph on these inputs"):
        Session("openvino", engine, threads=1).run({"x": ROWS.reshape(3, 2), "count": COUNT})


def test_a_damaged_engine_is_named(tmp_path: Path) -> None:
    path = tmp_path / "main.s0.cpu.xml"
    path.write_text("<net")
    with pytest.raises(TargetError) as caught:
        Session("openvino", path, threads=1)
    assert (caught.value.message, caught.value.where) == ("openvino cannot load this engine", str(path))


def test_a_missing_package_is_named_with_what_installs_it(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wanc.runtime.backends.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(TargetError) as caught:
        Session("openvino", engine, threads=1)
    assert caught.value.message == "the package openvino is missing"
    assert caught.value.hint == "pip install -r requirements.txt, which the bundle has"


@pytest.fixture(params=[{}, {"x": [3, 3]}, {"x": [2, 3]}], ids=["no first", "first fails", "first"])
def halved(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """`y` = x + 1 as rows of six; x is float32 [rows, 3], and an odd number of rows cannot be."""
    x = operators.parameter([-1, 3], np.float32)
    sixes = operators.reshape(x, operators.constant(np.array([-1, 6], np.int64)), False)
    y = operators.add(sixes, operators.constant(np.float32(1)))
    for name, node in {"x": x, "y": y}.items():
        node.output(0).set_names({name})
    model = openvino.Model([y], [x])
    if request.param:
        model.set_rt_info(json.dumps(request.param), FIRST)
    openvino.save_model(model, tmp_path / "main.s0.cpu.xml", compress_to_fp16=False)
    return tmp_path / "main.s0.cpu.xml"


@pytest.mark.parametrize("thrifty", [False, True], ids=["", "thrifty"])
@pytest.mark.parametrize(("threads", "lanes"), [(1, 1), (2, 1), (2, 2)])
def test_what_cannot_be_computed_fails_and_the_next_execution_is_right(
    halved: Path, threads: int, lanes: int, thrifty: bool
) -> None:
    """The library would take the failed sizes for the next one's, say nothing with one thread, and crash."""
    backend = OpenVino(halved, threads, lanes, thrifty=thrifty)
    for rows in [2, 3, 2, 4, 5, 5, 2, 2, 3, 4]:
        x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        if rows % 2:
            with pytest.raises(RuntimeError, match="reshape"):
                backend.run({"x": x})
        else:
            np.testing.assert_array_equal(backend.run({"x": x})[0], x.reshape(-1, 6) + 1)


def test_lanes_beside_one_that_fails_are_right(halved: Path) -> None:
    backend = OpenVino(halved, 2, 2, thrifty=True)

    def run(rows: int) -> bool:
        x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        try:
            return bool(np.array_equal(backend.run({"x": x})[0], x.reshape(-1, 6) + 1))
        except RuntimeError:
            return rows % 2 == 1

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(run, [2, 3, 4, 2, 5, 6, 3, 3] * 20))
