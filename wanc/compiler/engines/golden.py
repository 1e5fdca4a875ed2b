"""Golden inputs and outputs: one small execution of every graph, for `run.py --selftest` on the target.

They are what the engines gave on the machine that built them. So they prove that a target computes what the build
machine computed; that the build is right is what the parity tests prove.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wanc.compiler.program.program import ProgramComponent, ProgramGraph
from wanc.errors import CheckpointError, RecipeError, TargetError
from wanc.models.graph import concrete
from wanc.runtime import safetensors
from wanc.runtime.golden import EXPECTED, FOLDER, INPUTS, TOLERANCES, tensor_name
from wanc.runtime.noise import initial_noise
from wanc.runtime.session import Session

if TYPE_CHECKING:
    from wanc.compiler.engines.kernels import Kernels
    from wanc.compiler.engines.stage import Compiler

# Another CPU sums in another order; 1e-4 is far above what that costs in float32, far below any real fault.
RELATIVE_TOLERANCE = 1e-4


def write_golden(
    components: Mapping[str, ProgramComponent], out: Path, compiler: Compiler
) -> dict[tuple[str, str], Kernels]:
    """Run each graph once and write `golden/{inputs,expected}.safetensors` and `tolerances.json`.

    Sizes are those of the graph's example; tensors are named `<component>/<graph>/<input or output>`. Returns the
    kernels that were executed, by (component, graph). Raises CheckpointError where the engine does not take a graph,
    RecipeError where it does not run at these sizes, or gives NaNs.
    """
    kernels: dict[tuple[str, str], Kernels] = {}
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    expected: dict[str, np.ndarray[Any, Any]] = {}
    tolerances: dict[str, float] = {}
    for component, entry in sorted(components.items()):
        for graph_name, graph in sorted(entry.graphs.items()):
            prefix = f"{component}/{graph_name}"
            feeds = _example(graph, entry)
            outputs, kernels[component, graph_name] = _run(prefix, graph, out / graph.file, feeds, compiler)
            inputs |= {tensor_name(component, graph_name, name): array for name, array in feeds.items()}
            expected |= {tensor_name(component, graph_name, name): array for name, array in outputs.items()}
            tolerances[prefix] = RELATIVE_TOLERANCE
    folder = out / FOLDER
    folder.mkdir()
    safetensors.write(folder / INPUTS, inputs)
    safetensors.write(folder / EXPECTED, expected)
    (folder / TOLERANCES).write_text(json.dumps(tolerances, indent=1, sort_keys=True) + "\n")
    return kernels


def _example(graph: ProgramGraph, component: ProgramComponent) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded noise for floats and ones for everything else, unless the graph says what an input has to be."""
    shapes = {
        entry.name: concrete(entry.shape, other.example)
        for other in component.graphs.values()
        for entry in other.inputs
    }
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    for seed, entry in enumerate(graph.inputs):
        shape, dtype = concrete(entry.shape, graph.example), np.dtype(entry.dtype)
        if entry.shape_of is not None:
            feeds[entry.name] = np.array(shapes[entry.shape_of], dtype)
        elif entry.name in graph.values:
            feeds[entry.name] = np.full(shape, graph.values[entry.name]).astype(dtype)
        elif dtype.kind == "f":
            feeds[entry.name] = initial_noise(shape, seed).astype(dtype)
        else:
            feeds[entry.name] = np.ones(shape, dtype)
    return feeds


def _run(
    name: str, graph: ProgramGraph, path: Path, feeds: Mapping[str, np.ndarray[Any, Any]], compiler: Compiler
) -> tuple[dict[str, np.ndarray[Any, Any]], Kernels]:
    try:
        backend = compiler.open(path)
    except Exception as error:  # the libraries' exceptions share no base class
        # They name the file that is being built, which will be gone.
        reason = str(error).replace(str(path), path.name)
        raise CheckpointError(f"{name}: {compiler.kind} cannot load this graph") from RuntimeError(reason)
    try:
        outputs = Session(compiler.kind, path, threads=1, backend=backend).run(feeds)
    except TargetError as error:
        sizes = ", ".join(f"{size}: {count}" for size, count in sorted(graph.example.items()))
        raise RecipeError(
            f"{name} does not run at the sizes {{{sizes}}}",
            hint="give sizes that work together under model.example, and what inputs have to be under model.values",
        ) from error
    for output, array in outputs.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            # A self-test could never tell such an output from a broken one.
            raise RecipeError(
                f"{name}: the output {output} holds NaNs for the example's inputs",
                hint="give values for which it does not, under model.values",
            )
    return outputs, compiler.kernels(backend)
