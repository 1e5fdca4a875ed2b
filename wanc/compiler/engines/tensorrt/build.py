"""Building one engine with TensorRT for the GPU of this machine.

Polygraphy makes the network and its configuration: it knows what the library's versions call things.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from wanc.compiler.engines.distributions import ON_TARGET
from wanc.compiler.engines.tensorrt.building import BuildOutcome, BuildTask, logger_of, write_engine
from wanc.compiler.engines.tensorrt.comparison import compare
from wanc.compiler.engines.tensorrt.log import LAYERS

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
    del parser, network, builder, config  # not before: the network refers to the parser's weights
    if outcome.faults or outcome.unwritten:
        return outcome
    told = outcome.messages if _names_kernels(outcome.messages) else (*outcome.messages, *_inspected(trt, logger, task))
    load = polygraphy.EngineFromBytes(Path(task.engine).read_bytes)
    compared = compare(Path(task.graph), polygraphy.TrtRunner(load), task.profiles, task.values)
    return replace(outcome, messages=told, comparison=compared)


def _names_kernels(messages: Iterable[str]) -> bool:
    return any(message.startswith(LAYERS) for message in messages)


def _inspected(trt: Any, logger: Any, task: BuildTask) -> list[str]:
    """The list of kernels as the library's inspector has it, where the log has none: that takes the GPU."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(Path(task.engine).read_bytes())
    if engine is None:
        return []
    return [engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.ONELINE)]


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
