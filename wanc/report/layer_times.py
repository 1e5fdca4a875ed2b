"""How long an expert's Linears take inside a step, by the account of the engine's library, and whether 8 bits paid.

Linears at the same place of every block are one group, and q, k and v of an attention. What rounds the input of a
Linear, or adds its bias in a kernel of its own, counts as part of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from wanc.report.chunks import last_chunk
from wanc.report.document import LayerGroup
from wanc.report.reference import ReferenceRecord
from wanc.report.subject import FLOAT, Subject
from wanc.report.taps import can_be_looked_into, read_onnx, run_files
from wanc.report.teacher_forced import step_inputs
from wanc.runtime.denoise import GRAPH

Array = np.ndarray[Any, Any]
ROUNDS = 11
"""Executions of each bundle, in turn; a kernel counts with its median."""
OF_A_LINEAR = re.compile(r"(?P<linear>.+?)\.(weight|bias|input)(\.|$)")
"""What belongs to a Linear alone begins with its name."""
IN_A_BLOCK = re.compile(r"^.*?\.\d+\.")
PROJECTIONS = re.compile(r"\bto_(q|k|v|kv|qkv)$")
CODES = ("i8", "u8")


class Profiled(Protocol):
    """An engine file whose library says how long each kernel takes."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...

    def seconds(self) -> Mapping[str, Sequence[float]]:
        """By Linear, of each of its kernels the median over the executions. It is not executed again."""
        ...


def layer_groups(subject: Subject, baseline: Subject | None, record: ReferenceRecord) -> list[LayerGroup]:
    """Of every expert the groups of Linears, with the time of the baseline's beside the bundle's own.

    Nothing where no Linear was quantised, and of engines whose libraries do not say it here. Raises UserError where a
    package is missing that reads them.
    """
    subjects = [subject, *([baseline] if baseline else [])]
    found: list[LayerGroup] = []
    for expert in dict.fromkeys(record.experts):
        if all(can_be_looked_into(one.pipeline.bundle, expert, GRAPH) for one in subjects):
            found += _groups(expert, subjects, record)
    return found


def _groups(expert: str, subjects: Sequence[Subject], record: ReferenceRecord) -> list[LayerGroup]:
    linears = {linear for subject in subjects for linear in _linears(subject, expert)}
    if not linears:
        return []
    times = [_by_group(seconds, linears) for seconds in _in_turn(expert, subjects, record)]
    schemes = [_schemes(subject, expert) for subject in subjects]
    before, theirs = (times[1], schemes[1]) if len(subjects) > 1 else ({}, {})
    return [
        LayerGroup(
            expert=expert,
            group=group,
            scheme=schemes[0].get(group, FLOAT),
            seconds=seconds,
            baseline_scheme=theirs.get(group, FLOAT) if group in before else None,
            baseline_seconds=before.get(group),
        )
        for group, seconds in times[0].items()
    ]


def _in_turn(expert: str, subjects: Sequence[Subject], record: ReferenceRecord) -> list[Mapping[str, float]]:
    """By Linear, of each bundle: what one execution of the conditional branch takes at the expert's first state."""
    step, clip = record.experts.index(expert), record.clips[0]
    with ExitStack() as open_files:
        opened = [
            (
                subject.pipeline.bundle.engines[expert, GRAPH].files,
                _opened(subject, expert, open_files),
                step_inputs(expert, last_chunk(subject.pipeline, clip), clip, step, record.timesteps[step]),
            )
            for subject in subjects
        ]
        for _ in range(ROUNDS):
            for files, profiled, inputs in opened:
                run_files(files, [one.run for one in profiled], inputs)
        return [
            {linear: sum(kernels) for one in profiled for linear, kernels in one.seconds().items()}
            for _, profiled, _ in opened
        ]


def _opened(subject: Subject, expert: str, open_files: ExitStack) -> list[Profiled]:
    bundle = subject.pipeline.bundle
    return [
        bundle.folder.read(file.file, lambda path, file=file: OPENERS[file.engine](path, bundle.threads, open_files))
        for file in bundle.engines[expert, GRAPH].files
    ]


class _OnnxRuntimeProfile:
    """ONNX Runtime writes what it has measured into a file, at the end."""

    def __init__(self, path: Path, threads: int, open_files: ExitStack) -> None:
        import onnxruntime

        from wanc.runtime.backends.onnxruntime import open_session, session_options

        self._linears = {
            node.name: linear
            for node in read_onnx(path).graph.node
            if (linear := next(filter(None, map(linear_of, node.input)), None))
        }
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(open_files.enter_context(TemporaryDirectory())) / "profile")
        self._session: onnxruntime.InferenceSession = open_session(path, options, ["CPUExecutionProvider"])
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        found = self._session.run(self._outputs, dict(inputs))
        return {name: np.asarray(array) for name, array in zip(self._outputs, found, strict=True)}

    def seconds(self) -> Mapping[str, Sequence[float]]:
        events = json.loads(Path(self._session.end_profiling()).read_bytes())
        kernels: dict[str, list[float]] = defaultdict(list)
        for event in events:
            name, is_kernel, _ = event["name"].partition("_kernel_time")
            if is_kernel and event.get("cat") == "Node":
                kernels[name].append(event["dur"] / 1e6)
        # What the library fuses as it opens a file has the name of its first part, and how it was fused.
        return _medians((self._linears.get(name.partition("/")[0]), times) for name, times in kernels.items())


class _OpenVinoProfile:
    """OpenVINO tells it of the last execution. A kernel takes its weight by the name that it has in the file."""

    def __init__(self, path: Path, threads: int, open_files: ExitStack) -> None:
        from wanc.runtime.backends.openvino import compile_read, core

        del open_files
        self._compiled = compile_read(core().read_model(path), threads, more={"PERF_COUNT": True})
        self._request = self._compiled.create_infer_request()
        self._kernels: dict[str, list[float]] = defaultdict(list)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        found = self._request.infer(dict(inputs))
        for kernel in self._request.profiling_info:
            self._kernels[kernel.node_name].append(kernel.real_time.total_seconds())
        return {name: np.array(array) for port, array in found.items() for name in port.get_names()}

    def seconds(self) -> Mapping[str, Sequence[float]]:
        linears: dict[str, str] = {}
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            if str(node.get_rt_info()["layerType"].astype(str)) != "FullyConnected":
                continue
            given, weight = (node.input_value(side).get_node() for side in range(2))
            if linear := linear_of(weight.get_friendly_name()):
                linears[node.get_friendly_name()] = linear
                if node.input(0).get_element_type().get_type_name() in CODES:
                    linears.setdefault(given.get_friendly_name(), linear)
        return _medians((linears.get(name), times) for name, times in self._kernels.items())


OPENERS: Mapping[str, Callable[[Path, int, ExitStack], Profiled]] = {
    "onnxruntime": _OnnxRuntimeProfile,
    "openvino": _OpenVinoProfile,
}


def linear_of(name: str) -> str | None:
    """The Linear that a value is a part of, such as its weight; None of all others."""
    found = OF_A_LINEAR.match(name)
    return found["linear"] if found else None


def group_of(linear: str) -> str:
    """`blocks.3.attn1.to_k` → `attn1.to_q, k, v`."""
    return PROJECTIONS.sub("to_q, k, v", IN_A_BLOCK.sub("", linear))


def _medians(kernels: Iterable[tuple[str | None, Sequence[float]]]) -> dict[str, list[float]]:
    """By Linear; kernels that belong to none are left out."""
    found: dict[str, list[float]] = defaultdict(list)
    for linear, times in kernels:
        if linear is not None:
            found[linear].append(float(np.median(times)))
    return found


def _by_group(seconds: Mapping[str, float], linears: Collection[str]) -> dict[str, float]:
    """Of these alone: norms and convolutions have weights as well."""
    found: dict[str, float] = defaultdict(float)
    for linear, time in seconds.items():
        if linear in linears:
            found[group_of(linear)] += time
    return found


def _linears(subject: Subject, expert: str) -> dict[str, str]:
    """Those that the bundle's QuantTable names, with their schemes."""
    own = f"{expert}/"
    return {name.removeprefix(own): scheme for name, scheme in subject.facts.schemes.items() if name.startswith(own)}


def _schemes(subject: Subject, expert: str) -> dict[str, str]:
    """By group, the scheme that most of its Linears have."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for linear, scheme in _linears(subject, expert).items():
        found[group_of(linear)][scheme] += 1
    return {group: schemes.most_common(1)[0][0] for group, schemes in found.items()}
