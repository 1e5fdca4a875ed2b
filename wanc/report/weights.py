"""Which weights of two bundles differ: their engine files' tensors, by name and content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from wanc.report.subject import Subject
from wanc.runtime.denoise import GRAPH
from wanc.runtime.engine_file import EngineFile

SMALL = 64
"""Bytes below which a constant is no weight, but a size or an exponent."""


def changed_weights(subject: Subject, baseline: Subject, component: str) -> list[str]:
    """The names of the weights of a component's `step` graph that are not the baseline's, in the order of the graph.

    Of another engine, or of one that calls its weights otherwise, all are.
    """
    mine, theirs = (dict(_weights(each, component)) for each in (subject, baseline))
    return [name for name, digest in mine.items() if theirs.get(name) != digest]


def _weights(subject: Subject, component: str) -> Iterator[tuple[str, str]]:
    bundle = subject.pipeline.bundle
    for file in bundle.engines[component, GRAPH].files:
        yield from bundle.folder.read(file.file, lambda path, file=file: _read(file, path))


def _read(file: EngineFile, path: Path) -> list[tuple[str, str]]:
    return _of_openvino(path) if file.engine == "openvino" else _of_onnxruntime(path)


def _of_onnxruntime(path: Path) -> list[tuple[str, str]]:
    import onnx
    from onnx.external_data_helper import uses_external_data

    model = onnx.load(path, load_external_data=False)
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    used = dict.fromkeys(name for node in model.graph.node for name in node.input if name in found)
    digests: list[tuple[str, str]] = []
    for name in used:
        tensor = found[name]
        if not uses_external_data(tensor):
            digests.append((name, _digest(tensor.SerializeToString(deterministic=True))))
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        with (path.parent / place["location"]).open("rb") as stream:
            stream.seek(int(place.get("offset", 0)))
            digests.append((name, _digest(stream.read(int(place["length"])))))
    return digests


def _of_openvino(path: Path) -> list[tuple[str, str]]:
    from wanc.runtime.backends.openvino import core

    constants = [node for node in core().read_model(path).get_ordered_ops() if node.get_type_name() == "Constant"]
    values = ((str(node.get_friendly_name()), getattr(node, "data", None)) for node in constants)
    return [(name, _digest(data.tobytes())) for name, data in values if data is not None and data.nbytes >= SMALL]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
