"""Building one engine with TensorRT's Python binding, whichever of its editions: what both have the same names for.

This is executed in a process of its own (`process.py`), because the library has one logger for a process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.compiler.engines.tensorrt.comparison import Comparison
from wanc.compiler.engines.tensorrt.log import LAYERS
from wanc.compiler.engines.tensorrt.profiles import Profile


@dataclass(frozen=True)
class BuildTask:
    """A graph (`.onnx`, its weights beside it), the engine file to write, and for which target and sizes.

    `values` are the inputs whose profiles are their values. With `weight_streaming` an engine may leave weights in the
    host's memory, and fetch them while it is executed.
    """

    graph: str
    engine: str
    target: str
    profiles: tuple[Profile, ...]
    values: tuple[str, ...]
    weight_streaming: bool = False


@dataclass(frozen=True)
class BuildOutcome:
    """What the library said: its messages, and what it has against the graph; no faults where it built the engine.

    `missing` is a package that is not there, `version` what is wrong with the library's, and `unwritten` why the engine
    could not be written. `comparison` is that with the graph, where engines are executed where they are built.
    """

    messages: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    missing: str | None = None
    version: str | None = None
    unwritten: str | None = None
    comparison: Comparison | None = None


def build(trt: Any, task: BuildTask, configure: Callable[[Any], None]) -> BuildOutcome:
    """Build an engine into its file; `configure` sets what one edition alone has."""
    logger = logger_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(task.graph):
        return BuildOutcome(faults=tuple(str(parser.get_error(index).desc()) for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if task.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    configure(config)
    for profile in task.profiles:
        _add_profile(builder, config, profile, task.values)
    return write_engine(trt, logger, builder, network, config, Path(task.engine))


def write_engine(trt: Any, logger: Any, builder: Any, network: Any, config: Any, engine: Path) -> BuildOutcome:
    """Build into a file; `logger` is the one of `logger_of` with which the builder was made."""
    with engine.open("wb") as stream:
        writer = _writer(trt, stream)
        built = builder.build_serialized_network_to_stream(network, config, writer)
    if writer.fault is not None:  # of which the library may say that it has built all the same
        return BuildOutcome(unwritten=writer.fault)
    is_whole = built and not logger.errors and writer.written > 0
    faults = () if is_whole else (tuple(logger.errors) or ("it gives no reason",))
    return BuildOutcome(tuple(logger.messages), faults)


def _add_profile(builder: Any, config: Any, profile: Profile, values: tuple[str, ...]) -> None:
    made = builder.create_optimization_profile()
    for name, (least, usual, most) in profile.items():
        (made.set_shape_input if name in values else made.set_shape)(name, least, usual, most)
    config.add_optimization_profile(made)


def logger_of(trt: Any) -> Any:
    """What the library says goes into `messages`, and its faults into `errors`."""

    class Logger(trt.ILogger):
        """Keeps what is read afterwards: of what it says in detail, the list of kernels alone."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
            if severity != trt.ILogger.VERBOSE or message.startswith(LAYERS):
                self.messages.append(message)

    return Logger()


def _writer(trt: Any, stream: Any) -> Any:
    class StreamWriter(trt.IStreamWriter):
        """Writes an engine as it comes, so that it is not in memory twice."""

        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.written, self.fault = 0, None

        def write(self, data: bytes) -> int:
            try:
                stream.write(data)
            except OSError as error:
                self.fault = error.strerror or str(error)
                return 0
            self.written += len(data)
            return len(data)

    return StreamWriter()
