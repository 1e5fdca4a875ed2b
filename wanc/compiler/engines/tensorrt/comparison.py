"""An engine beside the graph that it was made of, executed by Polygraphy on the machine that built it.

ONNX Runtime executes the graph, where it has kernels for it: on CPUs it has none for halves. Graphs whose inputs are
large would take hours there. What cannot be executed by both is not compared, and the report says why.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wanc.compiler.engines.tensorrt.profiles import Profile
from wanc.runtime.selftest import relative_error

Array = np.ndarray[Any, Any]
MOST_BYTES = 2**24
"""Of inputs."""
SEED = 5


@dataclass(frozen=True)
class Comparison:
    """The relative error of each output, by its name; or `reason`, why nothing was compared."""

    errors: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: str | None = None


def compare(graph: Path, engine: Any, profiles: tuple[Profile, ...], values: tuple[str, ...]) -> Comparison:
    """Execute a graph and its engine, one of Polygraphy's runners, on the same inputs: noise, at usual sizes.

    `profiles` and `values` are as in `BuildTask`.
    """
    onnxruntime: Any = importlib.import_module("polygraphy.backend.onnxrt")
    comparator: Any = importlib.import_module("polygraphy.comparator").Comparator
    try:
        reference = onnxruntime.OnnxrtRunner(onnxruntime.SessionFromOnnx(str(graph), providers=["cpu"]))
        with reference:
            inputs = _inputs(
                reference.get_input_metadata(use_numpy_dtypes=False), profiles[0] if profiles else {}, values
            )
        if sum(array.nbytes for array in inputs.values()) > MOST_BYTES:
            return Comparison(reason="its inputs are too large for the graph to be executed on a processor")
        results = comparator.run([reference, engine], data_loader=[inputs])
    except Exception as error:  # the libraries' exceptions share no base class
        return Comparison(reason=(str(error).strip() or type(error).__name__).splitlines()[0][:200])
    (_, (expected,)), (_, (found,)) = results
    return Comparison({name: relative_error(found[name], np.asarray(array)) for name, array in expected.items()})


def _inputs(metadata: Any, profile: Profile, values: tuple[str, ...]) -> dict[str, Array]:
    data_type: Any = importlib.import_module("polygraphy.datatype")
    random = np.random.default_rng(SEED)
    found: dict[str, Array] = {}
    for name, (dtype, shape) in metadata.items():
        usual = profile[name][1] if name in profile else tuple(shape)
        kind = np.dtype(data_type.DataType.to_dtype(dtype, "numpy"))
        if name in values:
            found[name] = np.array(usual, kind)
        else:
            noise = random.standard_normal(usual) if kind.kind == "f" else np.ones(usual)
            found[name] = noise.astype(kind)
    return found
