"""Golden inputs and outputs: one small execution of every graph, for `run.py --selftest` on the target.

They are what the engines gave on the machine that built them. So they prove that a target computes what the build
machine computed; that the build is right is what the parity tests prove.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wanc.compiler.program import ProgramComponent
from wanc.models.graph import Input, concrete, split_dimension
from wanc.runtime import safetensors
from wanc.runtime.noise import initial_noise
from wanc.runtime.sessions import Session

# Another CPU sums in another order; 1e-4 is far above what that costs in float32, far below any real fault.
RELATIVE_TOLERANCE = 1e-4
TIMESTEP = 500.0


def write_golden(components: Mapping[str, ProgramComponent], out: Path) -> None:
    """Run each graph once at a small size and write `golden/{inputs,expected}.safetensors` and `tolerances.json`.

    Tensors are named `<component>/<graph>/<input or output>`. Sessions use one thread, so that the result does not
    depend on how many cores the build machine has.
    """
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    expected: dict[str, np.ndarray[Any, Any]] = {}
    tolerances: dict[str, float] = {}
    for component, entry in sorted(components.items()):
        for graph_name, graph in sorted(entry.graphs.items()):
            prefix = f"{component}/{graph_name}"
            feeds = _example(graph.inputs)
            outputs = Session(out / graph.file, threads=1).run(feeds)
            inputs |= {f"{prefix}/{name}": array for name, array in feeds.items()}
            expected |= {f"{prefix}/{name}": array for name, array in outputs.items()}
            tolerances[prefix] = RELATIVE_TOLERANCE
    (out / "golden").mkdir()
    safetensors.write(out / "golden" / "inputs.safetensors", inputs)
    safetensors.write(out / "golden" / "expected.safetensors", expected)
    (out / "golden" / "tolerances.json").write_text(json.dumps(tolerances, indent=1, sort_keys=True) + "\n")


def _example(inputs: tuple[Input, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded values of a small size; a different size for every symbolic name, so that a swapped axis shows."""
    names = sorted({split_dimension(d)[1] for entry in inputs for d in entry.shape if isinstance(d, str)})
    sizes = {name: 2 + index for index, name in enumerate(names)}
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    for seed, entry in enumerate(inputs):
        shape = concrete(entry.shape, sizes)
        if entry.dtype == "int64":
            feeds[entry.name] = np.ones(shape, np.int64)
        elif entry.binding == "build":
            feeds[entry.name] = np.full(shape, TIMESTEP, np.float32)
        else:
            feeds[entry.name] = initial_noise(shape, seed)
    return feeds
