"""Executing an ONNX graph as it is written: by onnxruntime without its optimisations, else by onnx's own reference."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from wanc.compiler.check.trials import Arrays, NoKernel, SourceRefuses
from wanc.models.forked import DeathError, call_in_fork
from wanc.runtime.backends.onnxruntime import FATAL_ONLY

Array = np.ndarray[Any, Any]
NOT_OPTIMISED, REFERENCE = "onnxruntime, not optimised", "onnx's reference implementation"
REFERENCE_SECONDS = 120
"""Of one execution: it computes in Python, loop by loop."""


class PlainGraph:
    """An `.onnx` file, with its weights where it says they are. On one thread, so that every machine agrees.

    `replaced` are values for some of its weights. Raises NoKernel.
    """

    def __init__(self, path: Path, replaced: Mapping[str, Array] | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = FATAL_ONLY
        kept = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in (replaced or {}).items()}
        for name, value in kept.items():
            options.add_initializer(name, value)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise NoKernel(str(error).strip().splitlines()[0]) from error
        self._kept = kept  # the session refers to them
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Its outputs by name. Raises SourceRefuses where it does not run on these inputs."""
        try:
            outputs: Any = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise SourceRefuses(str(error)) from error
        return dict(zip(self._outputs, map(np.asarray, outputs), strict=True))


class TypedGraph:
    """A graph in the types of a machine that is not this one, such as bfloat16; weights lie in `folder`.

    Raises NoKernel.
    """

    def __init__(self, model: ir.Model, folder: Path) -> None:
        from wanc.compiler.host.lowered import HostGraph

        try:
            self._graph = HostGraph(model, folder)
        except Exception as error:  # onnx's reference implementation raises what it likes
            raise NoKernel(str(error).strip().splitlines()[0]) from error

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """As `PlainGraph.run`."""
        try:
            return self._graph.run(inputs)
        except Exception as error:
            raise SourceRefuses(str(error)) from error


class ReferenceGraph:
    """The same for a file that onnxruntime has no kernels for. It executes in a fork, which may take its time alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """As `PlainGraph.run`."""
        try:
            answer = call_in_fork(lambda: self._answer(inputs), seconds=REFERENCE_SECONDS)
        except DeathError as error:
            raise SourceRefuses(str(error)) from error
        if answer is None:
            raise SourceRefuses("it raises an exception")
        with np.load(io.BytesIO(answer)) as file:
            names = json.loads(str(file["names"]))
            return {name: file[str(number)] for number, name in enumerate(names)}

    def _answer(self, inputs: Arrays) -> bytes:
        from onnx.reference import ReferenceEvaluator

        evaluator, stream = ReferenceEvaluator(str(self._path)), io.BytesIO()
        outputs: Any = evaluator.run(None, dict(inputs))
        arrays = {str(number): np.asarray(array) for number, array in enumerate(outputs)}
        np.savez(stream, names=np.array(json.dumps(evaluator.output_names)), **arrays)  # pyright: ignore
        return stream.getvalue()
