"""Executing graphs: segment after segment, and for several inputs at once in lanes that share the threads."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import openvino
import pytest

from wanc.runtime import session as module
from wanc.runtime.backends import onnxruntime as backend_module
from wanc.runtime.backends.onnxruntime import session_options
from wanc.runtime.backends.open import open_backend
from wanc.runtime.engine_file import EngineFile, EngineMemory
from wanc.runtime.errors import TargetError
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.pool import ArrayPool
from wanc.runtime.segments import Segments
from wanc.runtime.value import Value

KEY = ("denoiser", "step")
INPUTS = [{"x": np.full((3, 4), value, np.float32)} for value in (1, 2)]
MODEL = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n, 4] x) => (float[n, 4] y) { c = Constant <value_float = 10.0> () y = Add (x, c) }"""


def engine_file(file: str, engine: str, *, segment: int = 0, inputs: str = "x", outputs: str = "y") -> EngineFile:
    return EngineFile(
        *KEY, segment, engine, "cpu", None, "cpu", file, inputs=tuple(inputs.split()), outputs=tuple(outputs.split())
    )


def executor_of(root: Path, *files: EngineFile, threads: int = 2) -> Executor:
    """Of a graph that takes x and gives y."""
    return Executor(PlainFolder(root), {KEY: Segments(files, ("x",), ("y",))}, threads=threads)


def write(model: str, folder: Path, name: str, engine: str) -> str:
    """The file of a model, for either library."""
    onnx.save(onnx.parser.parse_model(model), folder / f"{name}.onnx")
    if engine == "openvino":
        openvino.save_model(openvino.convert_model(folder / f"{name}.onnx"), folder / f"{name}.xml")
        return f"{name}.xml"
    return f"{name}.onnx"


ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, EngineFile]:
    """y = x + 10, for either library."""
    return tmp_path, engine_file(write(MODEL, tmp_path, "step", request.param), request.param)


class Meeting:
    """Stands in for a back end whose executions end when `count` of them have begun."""

    outputs: ClassVar = ["y"]

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

    def open_backend(engine: str, path: Path, threads: int, lanes: int, *_: Any) -> Any:
        found.append((threads, lanes))
        return backend

    monkeypatch.setattr(module, "open_backend", open_backend)
    return found


@pytest.mark.parametrize("threads", [0, 1, 2, 3])
def test_results_come_in_the_order_of_the_inputs(engine: tuple[Path, EngineFile], threads: int) -> None:
    executor = executor_of(*engine, threads=threads)
    for _ in range(50):
        results = executor.run_together(*KEY, INPUTS)
        assert [float(result["y"].numpy()[0, 0]) for result in results] == [11, 12]
    assert executor.counters()["denoiser/step"]["executions"] == 100


def test_other_sizes_may_follow(engine: tuple[Path, EngineFile]) -> None:
    """Also after a size of 1, for which a model is compiled anew."""
    executor = executor_of(*engine)
    for rows in (1, 5, 1, 3):
        inputs = [{"x": np.full((rows, 4), value, np.float32)} for value in (1, 2)]
        assert [result["y"].shape for result in executor.run_together(*KEY, inputs)] == [(rows, 4)] * 2


def test_two_threads_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Meeting(2)
    arguments = opened(monkeypatch, backend)
    results = executor_of(Path(), engine_file("x.onnx", "onnxruntime")).run_together(*KEY, INPUTS)
    assert [float(result["y"].numpy()[0, 0]) for result in results] == [1, 2]
    assert arguments == [(2, 2)]
    assert len(backend.threads) == 2


@pytest.mark.parametrize(("threads", "count"), [(1, 2), (4, 1)], ids=["one thread", "one input"])
def test_what_cannot_be_shared_is_done_in_turn(monkeypatch: pytest.MonkeyPatch, threads: int, count: int) -> None:
    backend = Meeting(1)
    arguments = opened(monkeypatch, backend)
    executor_of(Path(), engine_file("x.onnx", "onnxruntime"), threads=threads).run_together(*KEY, INPUTS[:count])
    assert arguments == [(threads, 1)]
    assert backend.threads == {threading.get_ident()}


def test_a_lane_that_fails_is_an_error(engine: tuple[Path, EngineFile]) -> None:
    executor = executor_of(*engine)
    with pytest.raises(TargetError, match="cannot execute this graph"):
        executor.run_together(*KEY, [INPUTS[0], {"x": np.zeros((3, 5), np.float32)}])
    assert len(executor.run_together(*KEY, INPUTS)) == 2  # nothing is left in a state that hinders others


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
    backend: Any = open_backend("openvino", tmp_path / "a.xml", 2, 2)
    assert backend.compiled.get_property("NUM_STREAMS") == 2
    assert backend.compiled.get_property("INFERENCE_NUM_THREADS") == 2


# Segments

HEAD = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n, 4] x) => (float[n, 4] h, float[n, 4] far) {
    c = Constant <value_float = 10.0> () h = Add (x, c) far = Mul (x, c) }"""
MIDDLE = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n, 4] h) => (float[n, 4] k) { c = Constant <value_float = 2.0> () k = Mul (h, c) }"""
TAIL = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n, 4] k, float[n, 4] far, float[n, 4] x) => (float[n, 4] y) { s = Add (k, far) y = Sub (s, x) }"""


@pytest.fixture(params=ENGINES)
def segments(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, EngineFile, EngineFile, EngineFile]:
    """y = 2 * (x + 10) + 10 * x - x, of three files."""
    names = {"head": (HEAD, "x", "h far"), "middle": (MIDDLE, "h", "k"), "tail": (TAIL, "k far x", "y")}
    files = [
        engine_file(
            write(model, tmp_path, name, request.param), request.param, segment=index, inputs=inputs, outputs=outputs
        )
        for index, (name, (model, inputs, outputs)) in enumerate(names.items())
    ]
    return tmp_path, files[0], files[1], files[2]


@pytest.mark.parametrize("threads", [1, 2])
def test_segments_are_executed_in_order(segments: tuple[Path, *tuple[EngineFile, ...]], threads: int) -> None:
    executor = executor_of(*segments, threads=threads)
    for _ in range(20):
        results = executor.run_together(*KEY, INPUTS)
        assert [list(result) for result in results] == [["y"], ["y"]]
        assert [float(result["y"].numpy()[0, 0]) for result in results] == [31, 42]
    assert float(executor.run(*KEY, INPUTS[0])["y"].numpy()[2, 3]) == 31


def test_a_graph_is_counted_as_one_however_many_files_it_has(
    segments: tuple[Path, *tuple[EngineFile, ...]], tmp_path: Path
) -> None:
    executor = executor_of(*segments)
    executor.run(*KEY, INPUTS[0])
    counter = executor.counters()["denoiser/step"]
    assert (counter["executions"], counter["bytes"]) == (1, 2 * 3 * 4 * 4), "x and y, and nothing between segments"
    assert counter["seconds"] > 0


class Watched:
    """Stands in for every back end: remembers what is alive whenever a file is executed."""

    def __init__(self, outputs: list[str], alive: list[weakref.ref[Any]], seen: list[int]) -> None:
        self.outputs, self._alive, self._seen = outputs, alive, seen

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        self._seen.append(sum(reference() is not None for reference in self._alive))
        made = [np.zeros(3) for _ in self.outputs]
        self._alive += [weakref.ref(array) for array in made]
        return made


def test_what_no_later_segment_takes_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    seen: list[int] = []
    given = {"a": ["h", "far"], "b": ["k"], "c": ["m", "unused"], "d": ["y"]}
    monkeypatch.setattr(module, "open_backend", lambda _, path, *more: Watched(given[path.name], alive, seen))
    takes = ["x", "h", "k far", "m"]
    files = [
        engine_file(name, "any", segment=index, inputs=takes[index], outputs=" ".join(outputs))
        for index, (name, outputs) in enumerate(given.items())
    ]
    outputs = executor_of(Path(), *files).run(*KEY, {"x": np.zeros(3)})
    # Before a nothing; before b: h, far; before c: far, k; before d: m.
    assert seen == [0, 2, 2, 1]
    assert list(outputs) == ["y"]


def test_values_are_handed_on_as_they_are(engine: tuple[Path, EngineFile]) -> None:
    executor = executor_of(*engine)
    first = executor.run(*KEY, INPUTS[0])["y"]
    assert isinstance(first, Value)
    assert (first.shape, first.dtype, first.bytes) == ((3, 4), np.float32, 48)
    np.testing.assert_array_equal(executor.run(*KEY, {"x": first})["y"].numpy(), np.full((3, 4), 21, np.float32))


@pytest.mark.parametrize("inputs", [{}, {"x": INPUTS[0]["x"], "z": INPUTS[0]["x"]}, {"z": INPUTS[0]["x"]}])
def test_other_inputs_than_the_graph_s_are_refused(engine: tuple[Path, EngineFile], inputs: dict[str, Any]) -> None:
    with pytest.raises(TargetError) as caught:
        executor_of(*engine).run(*KEY, inputs)
    assert caught.value.message == f"denoiser/step is given {', '.join(inputs) or 'nothing'}"
    assert caught.value.hint == "it takes x"


def test_a_file_that_gives_something_else_is_refused_before_it_is_executed(tmp_path: Path) -> None:
    file = engine_file(write(MODEL, tmp_path, "step", "onnxruntime"), "onnxruntime", outputs="y other")
    with pytest.raises(TargetError, match="gives no other, which its entry in the manifest names"):
        executor_of(tmp_path, file).run(*KEY, INPUTS[0])


def test_a_component_is_closed_and_opened_again(engine: tuple[Path, EngineFile]) -> None:
    executor = executor_of(*engine)
    for _ in range(2):
        executor.run(*KEY, INPUTS[0])
        executor.close(KEY[0])
    assert executor.counters()["denoiser/step"]["executions"] == 2
    with pytest.raises(TargetError, match="this bundle has no engine for denoiser/absent"):
        executor.run("denoiser", "absent", {})


@pytest.mark.parametrize("component", ["denoiser", "vae_decoder"])
def test_engines_of_thrifty_components_keep_no_memory(
    tmp_path: Path, component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their results are the same; what it saves is measured at true size."""
    asked: list[onnxruntime.SessionOptions] = []
    right = backend_module.open_session

    def noting(path: Path, options: onnxruntime.SessionOptions, providers: Any) -> Any:
        asked.append(options)
        return right(path, options, providers)

    monkeypatch.setattr(backend_module, "open_session", noting)
    file = engine_file(write(MODEL, tmp_path, "step", "onnxruntime"), "onnxruntime")
    executor = Executor(PlainFolder(tmp_path), {KEY: Segments((file,), ("x",), ("y",))}, thrifty={component})
    assert executor.run(*KEY, INPUTS[0])["y"].numpy()[0, 0] == 11
    (options,) = asked
    has_pool = component != KEY[0]
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (has_pool, has_pool)


class Heavy:
    """Stands in for a back end whose files are large: remembers how many are open."""

    outputs: ClassVar = ["y"]
    open_now: ClassVar[weakref.WeakSet[Heavy]] = weakref.WeakSet()
    most: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.open_now.add(self)
        self.most.append(len(self.open_now))

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [inputs["x"]]


@pytest.mark.parametrize("threads", [1, 2])
def test_one_file_is_closed_before_the_next_is_opened_where_the_budget_has_room_for_one(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(module, "open_backend", lambda *_: Heavy())
    Heavy.most.clear()
    Heavy.open_now.clear()
    files = [
        replace(engine_file(name, "any", segment=0), graph=name, memory=EngineMemory(10, 10)) for name in ("a", "b")
    ]
    engines = {("denoiser", file.graph): Segments((file,), ("x",), ("y",)) for file in files}
    executor = Executor(PlainFolder(Path()), engines, threads=threads, budget=10)
    for _ in range(20):
        for file in files:
            assert len(executor.run_together("denoiser", file.graph, INPUTS)) == 2
    assert Heavy.most == [1] * 40


# Where outputs lie

SIZES = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n] x) => (float[n] a, float[m] b, float[2] c, float[n] d) {
    one = Constant <value_float = 1.0> () a = Add (x, one) d = Mul (x, x)
    places = NonZero (x) axes = Constant <value_ints = [0]> () flat = Squeeze (places, axes) b = Cast <to = 1> (flat)
    c = Constant <value_floats = [3.0, 4.0]> () }"""


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_are_put_into_the_arrays_that_are_made_for_them(tmp_path: Path, engine: str) -> None:
    """Those of a size that follows from the inputs' and others, in the graph's order, and again for other sizes."""
    pool = ArrayPool()
    backend = open_backend(engine, tmp_path / write(SIZES, tmp_path, "sizes", engine), 1, empty=pool.empty)
    assert backend.outputs == ["a", "b", "c", "d"]
    for count in (5000, 6000):
        x = np.arange(count, dtype=np.float32) % 4
        for _ in range(2):
            outputs = backend.run({"x": x})
            for found, expected in zip(outputs, (x + 1, np.flatnonzero(x), [3, 4], x * x), strict=True):
                np.testing.assert_array_equal(found, np.asarray(expected, np.float32))
            owners = {type(outputs[index].base).__module__ for index in (0, 1, 3)}
            assert owners == {ArrayPool.__module__}
            del outputs, found
    assert pool.counts().out == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_fails_gives_its_arrays_back_and_holds_no_input(tmp_path: Path, engine: str) -> None:
    pool = ArrayPool()
    backend = open_backend(engine, tmp_path / write(MODEL, tmp_path, "step", engine), 1, empty=pool.empty)
    inputs = pool.empty((1000, 5))
    with pytest.raises(Exception, match="x"):
        backend.run({"x": inputs})
    inputs = pool.empty((1000, 4))
    backend.run({"x": inputs})
    del inputs
    gc.collect()
    assert pool.counts().out == 0
