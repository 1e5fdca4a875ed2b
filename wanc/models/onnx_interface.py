"""The inputs and outputs of a foreign ONNX graph, in the terms of `wanc.models.graph`.

A file may leave sizes nameless, or name them with formulas. A bundle checks shapes by name, so that here every size
gets one: a plain name, the same wherever the file has the same text, and of its own where it has another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx

from wanc.errors import CheckpointError
from wanc.models.graph import Input, Output
from wanc.models.onnx_check import size_fault
from wanc.models.onnx_inference import inferred_outputs
from wanc.models.onnx_limits import MAX_NAME_BYTES
from wanc.models.onnx_tensors import quoted
from wanc.runtime.dimensions import Dimension, Dtype

T = onnx.TensorProto
DTYPES: Mapping[int, Dtype] = {
    T.FLOAT: "float32", T.DOUBLE: "float64", T.FLOAT16: "float16", T.BOOL: "bool", T.INT8: "int8", T.INT16: "int16",
    T.INT32: "int32", T.INT64: "int64", T.UINT8: "uint8", T.UINT16: "uint16", T.UINT32: "uint32", T.UINT64: "uint64",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NAMELESS = re.compile(r"[^A-Za-z0-9]*|-?[0-9]+|None")  # what exporters write for a size that they do not know
_INSIDE: Mapping[str, tuple[str, str]] = {
    "sequence": (
        "let the graph take its tensors, and make it inside, by SequenceConstruct",
        "let the graph take its tensors out of it, by SequenceAt",
    ),
    "optional": (
        "let the graph take what it holds, and make it inside, by Optional",
        "let the graph take out what it holds, by OptionalGetElement",
    ),
}
"""What can be done about an input, and about an output, that is no tensor."""
_CUT = ("begin behind what reads it", "end before what makes it")
_WIDER: Mapping[int, str] = {
    T.BFLOAT16: "float32", T.FLOAT8E4M3FN: "float32", T.FLOAT8E4M3FNUZ: "float32", T.FLOAT8E5M2: "float32",
    T.FLOAT8E5M2FNUZ: "float32", T.FLOAT8E8M0: "float32", T.INT4: "int8", T.INT2: "int8", T.UINT4: "uint8",
    T.UINT2: "uint8",
}  # fmt: skip
"""A type that an .npz file can hold, with every value of one that it cannot, and that onnxruntime makes of it."""
_MULTIPLE = re.compile(r"([1-9][0-9]{0,5})\*([A-Za-z_][A-Za-z0-9_]{0,63})")


def read_interface(model: onnx.ModelProto, *, where: str) -> tuple[tuple[Input, ...], tuple[Output, ...]]:
    """What the graph takes and gives; inputs that have a default are no part of it.

    Raises CheckpointError for what an .npz file cannot hold, and where an input has no type or rank, or an output has
    none and none can be inferred, or inferring it is fatal.
    """
    defaults = {tensor.name for tensor in model.graph.initializer}
    declared = [value for value in model.graph.input if value.name not in defaults]
    results = _typed_outputs(model, where)
    names = [value.name for value in results]
    if len(set(names)) < len(names):
        raise CheckpointError("two outputs have the same name", where=where)
    if same := sorted({value.name for value in declared} & set(names)):
        hint = "give it out through an Identity node, under a name of its own"
        raise CheckpointError(f"output {quoted(same[0])} is an input itself", where=where, hint=hint)
    symbols = _Symbols([*declared, *results])

    def parts(value: onnx.ValueInfoProto, kind: str) -> tuple[str, tuple[Dimension, ...], Dtype]:
        if fault := _fault(value):
            hint = _hint(value.type, kind == "output")
            raise CheckpointError(f"{kind} {quoted(value.name)} {fault}", where=where, hint=hint)
        tensor_type = value.type.tensor_type
        shape = tuple(symbols.dimension(value.name, axis, dim) for axis, dim in enumerate(tensor_type.shape.dim))
        return value.name, shape, DTYPES[tensor_type.elem_type]

    inputs = [parts(value, "input") for value in declared]
    outputs = [parts(value, "output") for value in results]
    return (
        tuple(Input(name, shape, binding="request", per="request", dtype=dtype) for name, shape, dtype in inputs),
        tuple(Output(name, shape, dtype=dtype) for name, shape, dtype in outputs),
    )


class _Symbols:
    """A plain name for every size that is not fixed, in order of appearance."""

    def __init__(self, values: list[onnx.ValueInfoProto]) -> None:
        texts = [dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim if dim.dim_param]
        # Names that are plain already come first: another text may not take them.
        self._names = {text: text for text in texts if _NAME.fullmatch(text)}
        self._names |= {match[2]: match[2] for text in texts if (match := _MULTIPLE.fullmatch(text))}
        self._taken = set(self._names)

    def dimension(self, owner: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> Dimension:
        """The size, or its name; one without a name in the file is called after the tensor and its axis."""
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return dim.dim_value
        text = dim.dim_param
        if _MULTIPLE.fullmatch(text):
            return text
        if _NAMELESS.fullmatch(text):
            return self._plain(f"{owner}_{axis}")
        if text not in self._names:
            self._names[text] = self._plain(text)
        return self._names[text]

    def _plain(self, text: str) -> str:
        stem = re.sub(r"[^A-Za-z0-9_]+", "_", text)[:56].strip("_") or "size"
        stem = stem if _NAME.fullmatch(stem) else f"_{stem}"
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name


def _fault(value: onnx.ValueInfoProto) -> str | None:
    """Why an .npz file cannot hold this, or None."""
    name, kind = value.name, value.type.WhichOneof("value")
    if not name.isprintable() or "\\" in name or len(name.encode()) > MAX_NAME_BYTES:
        return f"is not a name of at most {MAX_NAME_BYTES} bytes that can be printed"
    if kind != "tensor_type":
        return f"is {_with_article(kind.removesuffix('_type'))}, not a tensor" if kind else "has no type"
    tensor_type = value.type.tensor_type
    if tensor_type.elem_type not in DTYPES:
        types = {number: text.lower() for text, number in T.DataType.items()}
        found = types.get(tensor_type.elem_type, str(tensor_type.elem_type))
        return f"is of {found}, which an .npz file cannot hold" if tensor_type.elem_type else "has no type"
    if not tensor_type.HasField("shape"):
        return "does not say how many dimensions it has"
    return size_fault(value)  # what was inferred nobody has looked at yet


def _hint(declared: onnx.TypeProto, is_output: bool) -> str | None:
    """What can be done in the graph itself about a value that an .npz file cannot hold; None for other faults."""
    kind = str(declared.WhichOneof("value")).removesuffix("_type")
    element = declared.sequence_type.elem_type if kind == "sequence" else declared.optional_type.elem_type
    if kind in _INSIDE and element.WhichOneof("value") != "map_type":
        return _INSIDE[kind][is_output]
    dtype = declared.tensor_type.elem_type
    if dtype in _WIDER:
        wide = _WIDER[dtype]
        return f"let the graph give {wide}, by a Cast" if is_output else f"let the graph take {wide}, and Cast that"
    if kind in ("sequence", "optional", "map", "sparse_tensor") or dtype == T.STRING:
        return f"{_CUT[is_output]}: onnx.utils.extract_model cuts a graph"
    return None


def _with_article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def _typed_outputs(model: onnx.ModelProto, where: str) -> list[onnx.ValueInfoProto]:
    """The outputs, with types and ranks inferred where the file leaves them out."""
    outputs = list(model.graph.output)
    if all(value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape") for value in outputs):
        return outputs
    return inferred_outputs(model, where=where)
