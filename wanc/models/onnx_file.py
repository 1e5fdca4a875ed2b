"""Reading a foreign ONNX file: its graph, its interface, and the files that its weights lie in.

The file is untrusted. What it costs is bounded before it is parsed, everything that it says of itself is checked before
anything is done with it, and the names of files in it never lead out of its folder. The weights' values are not read.
All of that happens in the confined process of a stage, and in memory that goes by the size of the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError, Message

from wanc.errors import EXIT_NO_INPUT, CheckpointError
from wanc.models.graph import Input, Output
from wanc.models.memory_limit import memory_limit
from wanc.models.onnx_check import check_model, is_constant
from wanc.models.onnx_inference import check_survival
from wanc.models.onnx_interface import read_interface
from wanc.models.onnx_limits import MAX_PROTO_BYTES, memory_bytes
from wanc.models.onnx_tensors import ExternalRange, check_ranges, quoted
from wanc.models.onnx_wire import check_wire
from wanc.runtime.safe_read import opened_beneath

if TYPE_CHECKING:
    import onnx_ir as ir

MODEL = "model.onnx"
DATA = "data/"
CONSTANT = b'"\x08Constant'
"""In a file that has constants among its nodes: those may be what takes the place."""

WITHOUT_SHAPES = frozenset({"TensorProto", "SparseTensorProto", "StringStringEntryProto", "OperatorSetIdProto"})
"""Messages in which no shape of a value is, and of which there are many."""


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was checked. `files` holds it as `model.onnx`, and its weights' files as `data/<location>`."""

    files: Mapping[str, Path]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class OnnxModel:
    """What was read of such files: the graph, its external tensors with the names that they have in the model."""

    model: ir.Model
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]


def open_onnx(path: Path) -> OnnxFile:
    """Check a model, and find the files that it consists of: links in their paths are not followed.

    Raises CheckpointError: no such file, not an ONNX model, beyond a limit, or weights that are not where they should.
    """
    data = _read(path)
    with _bounded(path, len(data)):
        proto, ranges = _checked(data, path)
        inputs, outputs = read_interface(proto, where=str(path))
    sizes = _sizes_beneath(path, {entry.location for entry in ranges})
    check_ranges(ranges, sizes, where=str(path))
    data = {f"{DATA}{location}": path.parent / location for location in sorted(sizes)}
    return OnnxFile({MODEL: path, **data}, inputs, outputs)


def read_onnx(files: Mapping[str, Path]) -> OnnxModel:
    """The model in the files that `open_onnx` named, wherever they now are; everything is checked again.

    Raises CheckpointError as `open_onnx` does, and where ONNX's own checker or shape inference dies of the graph.
    """
    import onnx_ir as ir  # before memory is counted

    path = files[MODEL]
    data = _read(path)
    with _bounded(path, len(data)):
        proto, ranges = _checked(data, path)
        inputs, outputs = read_interface(proto, where=str(path))
        check_survival(proto, where=str(path))
        try:
            model = ir.from_proto(proto)
        except MemoryError:
            raise
        except Exception as error:  # onnx-ir has no base class for what it raises
            raise CheckpointError("onnx-ir cannot read this model", where=str(path)) from error
    locations = {entry.location for entry in ranges}
    if absent := sorted(location for location in locations if f"{DATA}{location}" not in files):
        raise CheckpointError(f"its weights lie in {quoted(absent[0])}, which was not there before", where=str(path))
    check_ranges(ranges, {name: files[f"{DATA}{name}"].stat().st_size for name in locations}, where=str(path))
    return OnnxModel(model, inputs, outputs)


@contextmanager
def _bounded(path: Path, size: int) -> Generator[None]:
    """The memory that a file of this size may take."""
    try:
        with memory_limit(memory_bytes(size)):
            yield
    except MemoryError as error:
        raise CheckpointError(
            f"takes more than the {memory_bytes(size)} bytes of memory that a file of {size} bytes may",
            where=str(path),
            hint="is it what its exporter wrote?",
        ) from error


def _checked(data: bytes, path: Path) -> tuple[onnx.ModelProto, list[ExternalRange]]:
    """The parsed file, and where it says that its external tensors lie."""
    check_wire(data, onnx.ModelProto.DESCRIPTOR, where=str(path))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise CheckpointError("not an ONNX file", where=str(path), hint="is the download complete?") from error
    ranges = check_model(model, where=str(path))
    _constants_to_initializers(model.graph)
    _forget_negative_sizes(model)
    return model, ranges


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Constants that lie in other files become weights, of a graph and those that its nodes hold."""
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _constants_to_initializers(inner)
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if is_constant(node) and values and values[0].data_location == onnx.TensorProto.EXTERNAL:
            graph.initializer.append(values[0])
            graph.initializer[-1].name = node.output[0]
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(nodes)


def _forget_negative_sizes(message: Message) -> None:
    """A size below zero says that a size is not known, as exporters of old did; ONNX's shape inference counts with it,
    and reads memory that lies elsewhere.
    """
    if isinstance(message, onnx.TensorShapeProto):
        for dim in message.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
        return
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.name not in WITHOUT_SHAPES:
            for inner in value if field.is_repeated else (value,):
                _forget_negative_sizes(inner)


def _read(path: Path) -> bytes:
    """All bytes of the model's file, which the user named: here links are followed."""
    try:
        # A FIFO must not hang the build.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError("is not a file", where=str(path), exit_code=EXIT_NO_INPUT)
            data = file.read(MAX_PROTO_BYTES + 1)
    except FileNotFoundError as error:
        raise CheckpointError("no such file", where=str(path), exit_code=EXIT_NO_INPUT) from error
    except OSError as error:
        raise CheckpointError("cannot be read", where=str(path), exit_code=EXIT_NO_INPUT) from error
    if len(data) > MAX_PROTO_BYTES:
        also = ", convert_attribute=True" if CONSTANT in data else ""
        raise CheckpointError(
            f"larger than the {MAX_PROTO_BYTES} bytes allowed",
            where=str(path),
            hint=f"keep the weights beside it: onnx.save(model, path, save_as_external_data=True{also})",
        )
    return data


def _sizes_beneath(path: Path, locations: Iterable[str]) -> dict[str, int]:
    """The sizes of files below the model's folder, opened component by component without following links."""
    sizes: dict[str, int] = {}
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CheckpointError("cannot be read", where=str(path.parent), exit_code=EXIT_NO_INPUT) from error
    try:
        for location in sorted(locations):
            try:
                with opened_beneath(folder, location) as descriptor:
                    status = os.fstat(descriptor)
            except FileNotFoundError as error:
                raise CheckpointError(
                    f"its weights lie in {quoted(location)}, which is missing",
                    where=str(path),
                    hint="is the download complete?",
                ) from error
            except OSError as error:
                raise CheckpointError(
                    f"its weights lie in {quoted(location)}, which cannot be opened without following links",
                    where=str(path),
                    hint="put the file itself beside the model",
                ) from error
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"its weights lie in {quoted(location)}, which is not a file", where=str(path))
            sizes[location] = status.st_size
    finally:
        os.close(folder)
    return sizes
