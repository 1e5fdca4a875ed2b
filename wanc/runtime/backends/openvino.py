"""The engine `openvino`, on the CPU."""

from __future__ import annotations

import functools
import json
import logging
import queue
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino

from ..interface import InputError
from ..pool import Empty, copied
from .allocator import give_back_what_is_large
from .base import Array
from .mapped import let_go

LOG = logging.getLogger(__name__)

PRECISION = ["wanc", "precision"]
"""Where a model says in which precision its products are to be computed: bf16 or f32."""
FLOAT32 = "f32"
FIRST = ["wanc", "first"]
"""Where a model says of which sizes its inputs can be at a first execution: {name: sizes}, as JSON."""
INPUTS_AS_THEY_ARE: Mapping[str, str] = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Without this, a product whose weight alone is codes rounds its other side as well."""
NOTHING_MORE: Mapping[str, Any] = {}


@functools.cache
def core() -> openvino.Core:
    """The library's own state, of which a process needs one."""
    return openvino.Core()


def compile_model(path: Path, threads: int, lanes: int = 1) -> openvino.CompiledModel:
    """Compile an IR (`.xml`, with its `.bin` beside it) for the CPU."""
    return compile_read(core().read_model(path), threads, lanes)


def compile_read(
    model: openvino.Model, threads: int, lanes: int = 1, more: Mapping[str, Any] = NOTHING_MORE
) -> openvino.CompiledModel:
    """Compile an IR that was read, in the precision that it asks for.

    Each lane is a stream, with its share of the threads; streams share the weights. A processor without bfloat16
    computes in float32, slower and closer to the float model; where the plugin does not find out by itself that it has
    to, compiling fails, and is tried so. `more` are properties of the library.
    """
    precision = str(model.get_rt_info(PRECISION).astype(str)) if model.has_rt_info(PRECISION) else FLOAT32
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": str(lanes),
        **INPUTS_AS_THEY_ARE,
        **more,
    }
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        return core().compile_model(model, "CPU", config)
    except RuntimeError:
        if precision == FLOAT32:
            raise
        return core().compile_model(model, "CPU", {**config, "INFERENCE_PRECISION_HINT": FLOAT32})


class OpenVino:
    """One IR. The library takes more than it should, so names, types and values of inputs are looked at here.

    Where the first execution is of a single row, attention without a mask is computed wrongly for 16 keys and more ever
    after (2026.4). So a model is compiled anew for other sizes, if one of those that it met first was 1.
    """

    def __init__(
        self, path: Path, threads: int, lanes: int = 1, *, thrifty: bool = False, empty: Empty = np.empty
    ) -> None:
        self.path, self._threads, self._lanes, self._thrifty = path, threads, lanes, thrifty
        self._empty: Empty = np.empty
        self._lock, self._alone = Lock(), Lock()
        if thrifty:
            give_back_what_is_large()
        # Compiled, a tensor may have gained the names of others that it has become one with.
        model = core().read_model(path)
        self._inputs = {port.any_name: np.dtype(port.element_type.to_dtype()) for port in model.inputs}
        self.outputs = [port.any_name for port in model.outputs]
        sizes = json.loads(str(model.get_rt_info(FIRST).astype(str))) if model.has_rt_info(FIRST) else {}
        self._few: Mapping[str, Array] = {}
        self._requests = queue.SimpleQueue[_Lane | None]()
        for _ in range(lanes):
            self._requests.put(None)
        self._compile()
        if sizes:
            few = {name: np.zeros(sizes[name], dtype) for name, dtype in self._inputs.items()}
            # The library packs weights when it is executed, and opening a file is to be all of it. What it does not
            # take is for the first real execution to tell, and is not given to it again.
            with suppress(RuntimeError):
                self.run(few)
                self._few = few
        self._empty = empty

    def _compile(self) -> None:
        self.compiled = compile_model(self.path, self._threads, self._lanes)
        self._first: dict[str, tuple[int, ...]] = {}
        self._has_run = False

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        if inputs.keys() != self._inputs.keys():
            raise ValueError(f"inputs {sorted(inputs)} are given, {sorted(self._inputs)} are needed")
        for name, array in inputs.items():
            if array.dtype != self._inputs[name]:
                raise ValueError(f"the input {name} is {array.dtype}, not {self._inputs[name]}")
            _check_values(name, array)
        with self._lock:
            self._meet({name: array.shape for name, array in inputs.items()})
        outputs = self._infer([_shared(inputs[name]) for name in self._inputs])
        self._give_back()
        return outputs

    def _infer(self, inputs: list[openvino.Tensor]) -> list[Array]:
        """What failed leaves its sizes behind in the library, which takes the next execution to have them.

        So a model in which one failed is compiled anew, and what ran beside it is done again, alone: the failure may
        have been another's.
        """
        lane = self._requests.get()
        try:
            if lane is None or lane.compiled is not self.compiled:
                lane = _Lane(self.compiled)
            outputs = lane.infer(inputs, self._empty)
            if lane.compiled is self.compiled:
                return outputs
        except RuntimeError as error:
            LOG.debug("%s: an execution failed: %s", self.path, error)
        finally:
            # A request keeps what it gave last, which is as much for each file as for all.
            self._requests.put(None if self._thrifty else lane)
        with self._alone:
            lanes = [self._requests.get() for _ in range(self._lanes)]
            try:
                self._compile()
                self._first = {name: tuple(tensor.shape) for name, tensor in zip(self._inputs, inputs, strict=True)}
                return _Lane(self.compiled).infer(inputs, self._empty)
            except RuntimeError:
                self._compile()
                raise
            finally:
                for each in lanes:
                    self._requests.put(each)

    def _give_back(self) -> None:
        """What is not needed any more: what was read of the weights' file once they are packed, at the first execution.

        And what lies between kernels, and at both ends, which each session has for itself. At the ends it is as much as
        the last execution had, so that one of little takes its place, in each lane.
        """
        with self._lock:
            if not self._has_run:
                self._has_run = True
                let_go(self.path.with_suffix(".bin"))
        if not self._thrifty:
            return
        idle: list[_Lane | None] = []
        with suppress(queue.Empty):
            while len(idle) < self._lanes:
                idle.append(self._requests.get_nowait())
        try:
            # Beside one that failed, it may fail as well.
            with suppress(RuntimeError):
                if len(idle) == self._lanes:
                    self._run_little()
        finally:
            for lane in idle:
                self._requests.put(lane)

    def _run_little(self) -> None:
        lanes = [_Lane(self.compiled) for _ in range(self._lanes if self._few else 0)]
        for lane in lanes:
            lane.start([_shared(array) for array in self._few.values()])
        for lane in lanes:
            lane.request.wait()
        self.compiled.release_memory()

    def _meet(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if self._first and shapes != self._first and self._met_one():
            self._compile()
        self._first = self._first or shapes

    def _met_one(self) -> bool:
        """Whether a size that may change was 1 at the first execution."""
        ports = zip(self.compiled.inputs, self._inputs, strict=True)
        shapes = [zip(port.partial_shape, self._first[name], strict=True) for port, name in ports]
        return any(size == 1 and limit.is_dynamic for shape in shapes for limit, size in shape)


class _Lane:
    """One execution at a time of a compiled model, with the arrays at its ends."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self.compiled, self.request = compiled, compiled.create_infer_request()

    def start(self, inputs: list[openvino.Tensor]) -> None:
        # By their numbers: names may have changed. Given to `start_async`, they would be held until the next execution.
        for index, tensor in enumerate(inputs):
            self.request.set_input_tensor(index, tensor)
        self.request.start_async()

    def infer(self, inputs: list[openvino.Tensor], empty: Empty) -> list[Array]:
        """The outputs, in memory of `empty`'s: the library's own for them is the next execution's.

        Not by its `infer`: with one thread, that says nothing of a failure, and gives what was there before (2026.4).
        """
        try:
            self.start(inputs)
            self.request.wait()
        except RuntimeError:
            raise
        except BaseException:  # a signal between the two: the library is still reading what is about to go
            with suppress(RuntimeError):
                self.request.cancel()
                self.request.wait()
            raise
        count = len(self.compiled.outputs)
        return [copied(self.request.get_output_tensor(index).data, empty) for index in range(count)]


def _shared(array: Array) -> openvino.Tensor:
    """An array as a tensor of the library's, without a copy, unless it has gaps or nobody may write to it."""
    # A contiguous copy of a number would be a row of one.
    contiguous = np.require(array, requirements=["C", "W"]).reshape(array.shape)
    return openvino.Tensor(contiguous, shared_memory=True)


def _check_values(name: str, array: Array) -> None:
    """Raises InputError for what the library computes as something else.

    Of an empty input it gives what the last execution has left, and integers are cut to 32 bits.
    """
    if not array.size:
        raise InputError(
            f"the input {name!r} is {array.dtype} {list(array.shape)}, and openvino gives no results for empty arrays",
            hint="leave the execution out, or build with engine.kind: onnxruntime",
        )
    low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    if array.dtype.kind in "iu" and array.dtype.itemsize >= 4 and (array.min() < low or array.max() > high):
        raise InputError(
            f"the input {name!r} holds {array.max() if array.max() > high else array.min()}, "
            f"and openvino takes integers from {low} to {high}",
            hint="build with engine.kind: onnxruntime for larger ones",
        )
