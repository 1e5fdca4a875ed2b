"""Building one engine with TensorRT for the GPU of this machine.

Polygraphy makes the network and its configuration: it knows what the library's versions call things.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from wanc.compiler.engines.distributions import ON_TARGET
from wanc.compiler.engines.tensorrt.building import BuildOutcome, BuildTask, logger_of, write_engine

MODULE, VERSION = "tensorrt", ON_TARGET["tensorrt-cu12"]
"""Engines are of one version, and run with no other; the log of a build has the form of that version."""


def build_engine(task: BuildTask) -> BuildOutcome:
    """Build in this process, in which no other engine was built."""
    try:
        trt: Any = importlib.import_module(MODULE)
        polygraphy: Any = importlib.import_module("polygraphy.backend.trt")
    except ImportError as error:
        return BuildOutcome(missing=error.name or MODULE)
    if trt.__version__ != VERSION:
        return BuildOutcome(version=f"{trt.__version__} is installed, and wanc builds with {VERSION}")
    # The library has one logger for a process, which Polygraphy makes unless there is one: this one is read.
    logger = polygraphy.util.TRT_LOGGER = logger_of(trt)
    try:
        builder, network, parser = polygraphy.network_from_onnx_path(task.graph, strongly_typed=True)
        config = _config(trt, polygraphy, task)(builder, network)
    except Exception as error:  # Polygraphy raises what the library has said before
        return BuildOutcome(faults=(*logger.errors, str(error)))
    outcome = write_engine(trt, logger, builder, network, config, Path(task.engine))
    del parser  # until now: the network refers to its weights
    return outcome


def _config(trt: Any, polygraphy: Any, task: BuildTask) -> Any:
    profiles: list[Any] = []
    for profile in task.profiles:
        profiles.append(polygraphy.Profile())
        for name, (least, usual, most) in profile.items():
            profiles[-1].add(name, least, usual, most)
    detailed = trt.ProfilingVerbosity.DETAILED
    return create_config(
        profiles=profiles, profiling_verbosity=detailed, weight_streaming=task.weight_streaming or None
    )


def create_config(**options: Any) -> Any:
    """What makes a configuration for a network; the other edition of the library has its own."""
    return importlib.import_module("polygraphy.backend.trt").CreateConfig(**options)
