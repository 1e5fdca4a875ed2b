"""Executing a graph for several inputs at once: in lanes that share the threads, or in turn."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import openvino
import pytest

from wanc.runtime import sessions as module
from wanc.runtime.backends.base import open_backend
from wanc.runtime.backends.onnxruntime import session_options
from wanc.runtime.errors import TargetError
from wanc.runtime.sessions import Sessions

KEY = ("denoiser", "step")
INPUTS = [{"x": np.full((3, 4), value, np.float32)} for value in (1, 2)]
MODEL = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n, 4] x) => (float[n, 4] y) { c = Constant <value_float = 10.0> () y = Add (x, c) }"""


@pytest.fixture(params=["onnx", "xml"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """y = x + 10, for either library."""
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "step.s0.cpu.onnx")
    if request.param == "xml":
        openvino.save_model(openvino.convert_model(tmp_path / "step.s0.cpu.onnx"), tmp_path / "step.s0.cpu.xml")
    return tmp_path / f"step.s0.cpu.{request.param}"


class Meeting:
    """Stands in for a back end whose executions end when `count` of them have begun."""

    outputs = ("y",)

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count, timeout=30)
        self.threads: set[int] = set()

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        self.threads.add(threading.get_ident())
        self._barrier.wait()
        return [inputs["x"]]


def opened(monkeypatch: pytest.MonkeyPatch, backend: Any) -> list[tuple[int, int]]:
    """Let every session have this back end; with how many threads and lanes it was opened."""
    found: list[tuple[int, int]] = []

    def open_backend(_: Path, threads: int, lanes: int) -> Any:
        found.append((threads, lanes))
        return backend

    monkeypatch.setattr(module, "open_backend", open_backend)
    return found


@pytest.mark.parametrize("threads", [0, 1, 2, 3])
def test_results_come_in_the_order_of_the_inputs(engine: Path, threads: int) -> None:
    sessions = Sessions({KEY: engine}, threads=threads)
    for _ in range(50):
        results = sessions.run_together(*KEY, INPUTS)
        assert [float(result["y"][0, 0]) for result in results] == [11, 12]
    assert sessions.counters()["denoiser/step"]["executions"] == 100


def test_other_sizes_may_follow(engine: Path) -> None:
    """Also after a size of 1, for which a model is compiled anew."""
    sessions = Sessions({KEY: engine}, threads=2)
    for rows in (1, 5, 1, 3):
        inputs = [{"x": np.full((rows, 4), value, np.float32)} for value in (1, 2)]
        assert [result["y"].shape for result in sessions.run_together(*KEY, inputs)] == [(rows, 4)] * 2


def test_two_threads_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Meeting(2)
    arguments = opened(monkeypatch, backend)
    results = Sessions({KEY: Path("x.onnx")}, threads=2).run_together(*KEY, INPUTS)
    assert [float(result["y"][0, 0]) for result in results] == [1, 2]
    assert arguments == [(2, 2)]
    assert len(backend.threads) == 2


@pytest.mark.parametrize(("threads", "count"), [(1, 2), (4, 1)], ids=["one thread", "one input"])
def test_what_cannot_be_shared_is_done_in_turn(monkeypatch: pytest.MonkeyPatch, threads: int, count: int) -> None:
    backend = Meeting(1)
    arguments = opened(monkeypatch, backend)
    Sessions({KEY: Path("x.onnx")}, threads=threads).run_together(*KEY, INPUTS[:count])
    assert arguments == [(threads, 1)]
    assert backend.threads == {threading.get_ident()}


def test_a_lane_that_fails_is_an_error(engine: Path) -> None:
    sessions = Sessions({KEY: engine}, threads=2)
    with pytest.raises(TargetError, match="cannot execute this graph"):
        sessions.run_together(*KEY, [INPUTS[0], {"x": np.zeros((3, 5), np.float32)}])
    assert len(sessions.run_together(*KEY, INPUTS)) == 2  # nothing is left in a state that hinders others


@pytest.mark.parametrize(("threads", "lanes", "own"), [(0, 1, 0), (4, 1, 4), (2, 2, 1), (8, 2, 7)])
def test_callers_count_among_the_threads(threads: int, lanes: int, own: int) -> None:
    """onnxruntime starts one thread less than it is told, for the caller; 0 leaves the number to it."""
    assert session_options(threads, lanes).intra_op_num_threads == own


def test_every_core_is_found_where_lanes_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanc.runtime.backends.onnxruntime.available_cores", lambda: 16)
    assert session_options(0, 2).intra_op_num_threads == 15


def test_streams_share_the_threads(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "a.onnx")
    openvino.save_model(openvino.convert_model(tmp_path / "a.onnx"), tmp_path / "a.xml")
    backend: Any = open_backend(tmp_path / "a.xml", 2, 2)
    assert backend.compiled.get_property("NUM_STREAMS") == 2
    assert backend.compiled.get_property("INFERENCE_NUM_THREADS") == 2
