"""Values that stay where a back end has them. The library's own bindings are used, on the CPU where there is no GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from wanc.runtime import session as module
from wanc.runtime.backends.cuda import DEVICE, EXACT, PROVIDER, DeviceTensor, OnnxRuntimeCuda
from wanc.runtime.backends.open import open_backend
from wanc.runtime.engine_file import CPU, CUDA
from wanc.runtime.errors import TargetError
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.segments import Segments
from wanc.runtime.session import Session
from wanc.runtime.value import Value

from .test_executor import HEAD, INPUTS, KEY, MIDDLE, TAIL, engine_file, executor_of, write

HAS_CUDA = PROVIDER in onnxruntime.get_available_providers()
WITHOUT = pytest.mark.skipif(not HAS_CUDA, reason="onnxruntime-gpu is not installed")
DEVICES = [
    pytest.param(("CPUExecutionProvider", "cpu", {}), id="cpu"),
    pytest.param((PROVIDER, DEVICE, EXACT), id="cuda", marks=(pytest.mark.gpu, WITHOUT)),
]
DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "int8", "bool")


def opened(path: Path, device: tuple[str, str, dict[str, str]], lanes: int = 1) -> OnnxRuntimeCuda:
    provider, name, options = device
    return OnnxRuntimeCuda(path, 1, lanes, provider=provider, device=name, options=options)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def executor(device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Executor:
    """y = 2 * (x + 10) + 10 * x - x, of three files that are executed on the device."""
    monkeypatch.setattr(module, "open_backend", lambda _, path, threads, lanes, *rest: opened(path, device, lanes))
    names = {"head": (HEAD, "x", "h far"), "middle": (MIDDLE, "h", "k"), "tail": (TAIL, "k far x", "y")}
    files = [
        engine_file(
            write(model, tmp_path, name, "onnxruntime"), "onnxruntime", segment=index, inputs=inputs, outputs=outputs
        )
        for index, (name, (model, inputs, outputs)) in enumerate(names.items())
    ]
    return executor_of(tmp_path, *files)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often something is copied to the device, and back."""
    counted: Counter[str] = Counter()
    place, numpy = OnnxRuntimeCuda._place, DeviceTensor.numpy

    def counting_place(self: OnnxRuntimeCuda, array: np.ndarray) -> DeviceTensor:
        counted["there"] += 1
        return place(self, array)

    def counting_numpy(self: DeviceTensor) -> np.ndarray:
        counted["back"] += 1
        return numpy(self)

    monkeypatch.setattr(OnnxRuntimeCuda, "_place", counting_place)
    monkeypatch.setattr(DeviceTensor, "numpy", counting_numpy)
    return counted


def test_what_passes_between_segments_stays_there(executor: Executor, copies: Counter[str]) -> None:
    result = executor.run(*KEY, INPUTS[0])["y"]
    assert copies == {"there": 1}, "x, which two of the segments take"
    assert (result.shape, result.dtype, result.bytes) == ((3, 4), np.float32, 48)
    assert copies == {"there": 1}, "to tell what it is takes no copy"
    np.testing.assert_array_equal(result.numpy(), np.full((3, 4), 31, np.float32))
    assert result.numpy() is result.numpy() and copies == {"there": 1, "back": 1}


def test_what_one_graph_gives_another_takes_without_a_copy(executor: Executor, copies: Counter[str]) -> None:
    first = executor.run(*KEY, INPUTS[0])["y"]
    second = executor.run(*KEY, {"x": first})["y"]
    assert copies == {"there": 1}
    np.testing.assert_array_equal(second.numpy(), np.full((3, 4), 2 * 41 + 9 * 31, np.float32))


def test_what_both_branches_take_is_copied_once(executor: Executor, copies: Counter[str]) -> None:
    for _ in range(20):
        copies.clear()
        results = executor.run_together(*KEY, [INPUTS[0], INPUTS[0]])
        assert copies == {"there": 1}
        assert [float(result["y"].numpy()[0, 0]) for result in results] == [31, 31]


def test_a_gpu_executes_one_branch_after_the_other(
    device: Any, copies: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes: list[int] = []

    def open_backend(_: str, path: Path, threads: int, count: int, target: str, thrifty: bool) -> OnnxRuntimeCuda:
        assert target == CUDA
        lanes.append(count)
        return opened(path, device, count)

    monkeypatch.setattr(module, "open_backend", open_backend)
    file = engine_file(write(HEAD, tmp_path, "head", "onnxruntime"), "onnxruntime", outputs="h far")
    executor = Executor(
        PlainFolder(tmp_path), {KEY: Segments((replace(file, target=CUDA),), ("x",), ("h",))}, threads=2
    )
    results = executor.run_together(*KEY, [INPUTS[0], INPUTS[0]])
    assert lanes == [1] and copies == {"there": 1}
    assert [float(result["h"].numpy()[0, 0]) for result in results] == [11, 11]


def test_branches_of_their_own_keep_apart(executor: Executor) -> None:
    for _ in range(20):
        results = executor.run_together(*KEY, INPUTS)
        assert [float(result["y"].numpy()[0, 0]) for result in results] == [31, 42]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_every_dtype_and_shape_comes_back_as_it_was(
    dtype: str, shape: tuple[int, ...], device: Any, tmp_path: Path
) -> None:
    element = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    sizes = f"[{', '.join('abc'[: len(shape)])}]" if shape else "[]"
    model = f'<ir_version: 10, opset_import: ["" : 21]> g ({element}{sizes} x) => ({element}{sizes} y)'
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(model + " { y = Identity (x) }"), path)
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    (value,) = opened(path, device).run_there({"x": Value(array)})
    assert (value.shape, value.dtype, value.bytes) == (shape, np.dtype(dtype), array.nbytes)
    np.testing.assert_array_equal(value.numpy(), array)
    assert value.numpy().dtype == array.dtype


def test_an_array_may_lie_in_another_order(device: Any, tmp_path: Path) -> None:
    backend = opened(tmp_path / write(HEAD, tmp_path, "head", "onnxruntime"), device)
    turned = np.arange(12, dtype=np.float32).reshape(4, 3).T
    np.testing.assert_array_equal(backend.run({"x": turned})[0], turned + 10)


def test_what_is_not_taken_is_an_error(executor: Executor) -> None:
    with pytest.raises(TargetError, match="cannot execute this graph on these inputs"):
        executor.run(*KEY, {"x": np.zeros((3, 5), np.float32)})
    assert float(executor.run(*KEY, INPUTS[0])["y"].numpy()[0, 0]) == 31


def test_for_another_target_it_is_the_cpu(tmp_path: Path) -> None:
    path = tmp_path / write(HEAD, tmp_path, "head", "onnxruntime")
    assert not isinstance(open_backend("onnxruntime", path, 1, 1, CPU), OnnxRuntimeCuda)


@pytest.mark.skipif(HAS_CUDA, reason="onnxruntime is the one for GPUs")
def test_without_the_library_for_it_a_session_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / write(HEAD, tmp_path, "head", "onnxruntime")
    with pytest.raises(TargetError) as caught:
        Session("onnxruntime", path, threads=1, target=CUDA)
    assert caught.value.message.startswith("this bundle is for an NVIDIA GPU, and the onnxruntime")
    assert "wanc[gpu] in place of wanc[cpu]" in str(caught.value.hint)
