"""What a bundle's engines have inside: values that no file gives, named by its EngineReport, at a given state.

A file is opened once more with these values as outputs beside its own. That it computes the same is what the engines'
libraries promise but for the last place: a value that is looked at is not fused away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.runtime.bundle import Bundle
from wanc.runtime.engine_file import CPU, EngineFile
from wanc.runtime.value import Given, as_array

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]
LOOKED_INTO = ("onnxruntime", "openvino")
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


def can_be_looked_into(bundle: Bundle, component: str, graph: str) -> bool:
    """Whether a bundle has the graph, and all of its files are of engines that tell here what is inside of them."""
    segments = bundle.engines.get((component, graph))
    return segments is not None and all(file.target == CPU and file.engine in LOOKED_INTO for file in segments.files)


class Tapped:
    """A graph of a component, with some values from inside it; `missing` are those that no engine file has."""

    def __init__(self, bundle: Bundle, component: str, graph: str, names: Collection[str], threads: int) -> None:
        """Raises UserError where a package is missing that opens an engine's files so."""
        self._files = bundle.engines[component, graph].files
        self._runs: list[Run] = []
        found: set[str] = set()
        for file in self._files:
            run, there = bundle.folder.read(file.file, lambda path, file=file: _open(file, path, names, threads))
            self._runs.append(run)
            found |= there
        self.missing = set(names) - found

    def run(self, inputs: Mapping[str, Given]) -> dict[str, Array]:
        """All that is known behind an execution: inputs, what goes from file to file, outputs and taps."""
        return run_files(self._files, self._runs, inputs)


def run_files(files: Sequence[EngineFile], runs: Sequence[Run], inputs: Mapping[str, Given]) -> dict[str, Array]:
    """Execute a graph's files one after the other: all that is known then, by name."""
    values = {name: as_array(given) for name, given in inputs.items()}
    for file, run in zip(files, runs, strict=True):
        values |= run({name: values[name] for name in file.inputs})
    return values


def _open(file: EngineFile, path: Path, names: Collection[str], threads: int) -> tuple[Run, set[str]]:
    """What executes a file, and which of the values it has."""
    if file.engine == "openvino":
        return _open_openvino(path, names, threads)
    return _open_onnxruntime(path, names, threads)


def read_onnx(path: Path) -> onnx.ModelProto:
    """A file of ONNX Runtime's, without its weights. Raises UserError where the package is missing."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise UserError(
            "to look into engines of onnxruntime takes the package onnx",
            hint="pip install 'wanc[report]'",
            exit_code=EXIT_UNAVAILABLE,
        ) from None
    return onnx.load(path, load_external_data=False)


def _open_onnxruntime(path: Path, names: Collection[str], threads: int) -> tuple[Run, set[str]]:
    model = read_onnx(path)
    import onnx
    import onnxruntime

    from wanc.runtime.backends.onnxruntime import SLOWER, ask, session_options

    given = {value.name for value in model.graph.output}
    there = {name for node in model.graph.node for name in node.output} & set(names)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(there - given))
    options = session_options(threads)
    ask(options, path)
    # Its weights lie beside a file that this model was read from, and is not.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER
    )
    outputs = [value.name for value in session.get_outputs()]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        found = session.run(outputs, dict(inputs))
        return {name: np.asarray(array) for name, array in zip(outputs, found, strict=True)}

    return run, there


def _open_openvino(path: Path, names: Collection[str], threads: int) -> tuple[Run, set[str]]:
    from wanc.runtime.backends.openvino import compile_read, core

    model = core().read_model(path)
    ports = {name: output for node in model.get_ops() for output in node.outputs() for name in output.get_names()}
    there = ports.keys() & set(names)
    given = {name for output in model.outputs for name in output.get_names()}
    model.add_outputs([ports[name] for name in sorted(there - given)])
    compiled = compile_read(model, threads)
    wanted = [*sorted(given), *sorted(there - given)]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        found = compiled(dict(inputs))
        return {name: np.array(found[name]) for name in wanted}

    return run, there
