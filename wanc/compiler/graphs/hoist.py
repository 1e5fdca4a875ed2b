"""Cutting by binding time: every node moves to the earliest time at which its inputs are known.

A graph's inputs are declared with the time at which they become known. What depends on none of them is a constant and
is found in every part that uses it. What depends on inputs of one kind alone, such as the prompt, is cut off into a
part that runs once for each prompt; its results are inputs of what remains. Sizes of an input are known before its
values: `Shape` of a step's input is known when the request is made.

Two kinds do not mix to a third: what depends on the timestep and the prompt is only known at the step, because each
timestep is met by each prompt. Sizes go with anything of a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, get_args

import onnx_ir as ir

from wanc.compiler.graphs.folds import SMOOTHING
from wanc.compiler.graphs.pieces import ROUNDING, Piece, cut, reaching
from wanc.compiler.graphs.size_names import UNKNOWN, SizeNames
from wanc.compiler.graphs.values import attribute
from wanc.models.graph import BindingTime, Input, Output, Scope
from wanc.runtime.dimensions import Dimension, Dtype, split_dimension


class Known(NamedTuple):
    """When a value is known, and for whom; a constant has none of it."""

    binding: BindingTime
    per: Scope


SIZES = Known("request", "request")
TIMES: tuple[BindingTime, ...] = ("build", "request", "chunk", "step")
PARTS: Mapping[Known, str] = {
    Known("build", "expert"): "time",
    SIZES: "shape",
    Known("request", "branch"): "request",
    Known("chunk", "request"): "chunk",
    Known("chunk", "branch"): "chunk-branch",
}
"""What the part is called that holds what is known then."""

SHAPE = ".shape"
"""What the name of an input ends with that is the shape of another."""
SUFFIX = re.compile(r"\.(weight|bias|float32|codes|scales)$")


@dataclass(frozen=True)
class HoistedPiece:
    """What is known at one time, with its interface: inputs are the graph's own, or outputs of earlier pieces.

    `name` is the part's, or the graph's own for what remains; `example` has a size for each name in the interface.
    `computed` are sizes in the interface that are computed of others: `tokens` is `frames*rows*columns`. They have one
    name in all of the graph: an engine takes two for two sizes, of which nothing says that they are equal.
    """

    name: str
    model: ir.Model
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    example: Mapping[str, int]
    computed: Mapping[str, str] = field(default_factory=dict[str, str])


def hoist(
    name: str,
    model: ir.Model,
    inputs: Iterable[Input],
    outputs: Iterable[Output],
    example: Mapping[str, int],
    parts: Iterable[str],
    named: Mapping[str, str] | None = None,
) -> list[HoistedPiece]:
    """Cut a graph into the `parts` asked for and the rest, which keeps its name, in the order of execution.

    `named` are names for computed sizes that the parts may come to have in their interface; others get one made up.
    Returns the graph alone where nothing can be moved. What a graph gives, it computes itself: no output moves.
    """
    declared, outputs = {entry.name: entry for entry in inputs}, tuple(outputs)
    last = _last(declared.values())
    # Nothing else is run again and again for one request.
    times = _times(model, declared, set(parts), last) if last.binding == "step" else {}
    crossing = _crossing(times)
    if not crossing:
        return [HoistedPiece(name, model, tuple(declared.values()), outputs, example)]
    _name(model, crossing)
    sizes, names = dict(example), SizeNames(named or {})
    moved = {str(value.name): _declare(value, known, sizes, names) for value, known in crossing.items()}
    names.apply(model.graph)
    # What the graph gives may have such a size, whether or not a part does; what it takes may have one of that name.
    given = {size for entry in outputs for size in entry.shape if isinstance(size, str)}
    computed = {size: text for size, text in (named or {}).items() if size in given and size not in example}
    for size, text in computed.items():
        sizes.setdefault(size, _evaluated(text, sizes))
    order = [known for known in (*PARTS, last) if known in times.values()]
    pieces = cut(model, [[node for node, entry in times.items() if entry == known] for known in order])
    found = [
        _declared(name if known == last else PARTS[known], piece, {**declared, **moved}, sizes)
        for known, piece in zip(order, pieces, strict=True)
    ]
    computed |= names.computed()
    return [replace(part, computed=computed) for part in (*found[:-1], replace(found[-1], outputs=outputs))]


def join(left: Known | None, right: Known | None, last: Known) -> Known | None:
    """When a node is known whose inputs are known at these times; `last` is when all inputs of its graph are."""
    if left is None or left == right:
        return right
    if right is None:
        return left
    for one, other in ((left, right), (right, left)):
        # A request has its branches and its chunks in it; a timestep is not in a request, but met in each.
        if one == SIZES and other.binding != "build":
            return other
    if last in (left, right) or "build" in (left.binding, right.binding):
        return last
    later = max(left, right, key=lambda known: TIMES.index(known.binding))
    per: Scope = "branch" if "branch" in (left.per, right.per) else later.per
    return Known(later.binding, per)


def _crossing(times: Mapping[ir.Node, Known]) -> dict[ir.Value, Known]:
    """The values that one part computes and another uses, in the order in which they are computed."""
    reach = reaching(times.keys())
    crossing = {
        value
        for node, known in times.items()
        for value in reach(node)[0]
        if (giver := value.producer()) is not None and times[giver] != known
    }
    return {value: known for node, known in times.items() for value in node.outputs if value in crossing}


def _times(model: ir.Model, declared: Mapping[str, Input], parts: set[str], last: Known) -> dict[ir.Node, Known]:
    """For each node when it is executed, as far as there is a part for that, otherwise `last`.

    Left out is what every part has for itself: constants, sizes, which are cheap and needed everywhere, and what
    rounds for a product.
    """
    times: dict[ir.Value, Known | None] = dict.fromkeys(model.graph.initializers.values())
    sizes: set[ir.Value] = set()
    executed: dict[ir.Node, Known] = {}
    for value in model.graph.inputs:
        entry = declared[str(value.name)]
        times[value] = Known(entry.binding, entry.per)
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        known: Known | None = None
        if (node.domain, node.op_type) == ("", "Shape") and inputs[0].is_graph_input():
            known, of_sizes = SIZES, True
        else:
            for value in inputs:
                known = join(known, times[value], last)
            of_sizes = all(times[value] is None or value in sizes for value in inputs)
        if _stays(node):
            known = last
        elif known == SIZES and of_sizes and _are_sizes(node):
            sizes.update(node.outputs)
        elif known is not None and node.op_type in ROUNDING:
            pass  # known with what it rounds, and copied to where that is multiplied
        elif known is not None and not (PARTS.get(known) in parts and all(map(_can_be_input, node.outputs))):
            known = last
        times.update(dict.fromkeys(node.outputs, known))
        if known is not None and node.op_type not in ROUNDING and not sizes.issuperset(node.outputs):
            executed[node] = known
    return executed


def _last(inputs: Iterable[Input]) -> Known:
    times = [Known(entry.binding, entry.per) for entry in inputs] or [SIZES]
    return max(times, key=lambda known: TIMES.index(known.binding))


def _stays(node: ir.Node) -> bool:
    """Whether a node stays where it is: its graph might not be run, its result is random, or the graph gives it."""
    holds_graph = any(
        entry.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for entry in node.attributes.values()
    )
    gives = any(value.is_graph_output() for value in node.outputs)
    return holds_graph or gives or node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")


def _are_sizes(node: ir.Node) -> bool:
    """Whether a node handles sizes and no table made of them: whole numbers, in a scalar or a short row."""
    return all(
        value.dtype is not None and value.dtype.is_integer() and value.shape is not None and len(value.shape) <= 1
        for value in node.outputs
    )


def _can_be_input(value: ir.Value) -> bool:
    return value.shape is not None and value.dtype is not None and value.dtype.numpy().name in get_args(Dtype)


def _name(model: ir.Model, crossing: Iterable[ir.Value]) -> None:
    """Call each after the last weight that went into it: `blocks.3.attn2.norm_k`, `blocks.3.scale_shift_table.2`."""
    taken = {str(value.name) for value in model.graph.inputs}
    taken |= {str(value.name) for node in model.graph.all_nodes() for value in node.outputs}
    for graph in (model.graph, *model.graph.subgraphs()):
        taken |= {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
    counts: dict[str, int] = {}
    for value in crossing:
        stem = _weight_behind(value) or "value"
        while True:
            count = counts[stem] = counts.get(stem, -1) + 1
            name = f"{stem}.{count}" if count or stem in taken else stem
            if name not in taken:
                break
        taken.add(name)
        value.name = name


def _weight_behind(value: ir.Value) -> str:
    """The name of the nearest weight among a value's ancestors, without what it is of its layer."""
    waiting, seen = [value], {value}
    while waiting:
        current = waiting.pop(0)
        if isinstance(current.const_value, ir.ExternalTensor) or (
            current.is_initializer() and "." in str(current.name) and not str(current.name).endswith(SMOOTHING)
        ):
            name = str(current.name)
            while shorter := SUFFIX.sub("", name):
                if shorter == name:
                    return name
                name = shorter
        node = current.producer()
        for source in node.inputs if node else ():
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return ""


def _declare(value: ir.Value, known: Known, sizes: dict[str, int], names: SizeNames) -> Input:
    """A crossing value as an input. Sizes that are no multiple of a name get one of their own, noted in `names`.

    What they are in the example is noted in `sizes`; where the graph does not say, it is 1.
    """
    assert value.dtype is not None and value.shape is not None
    shape: list[Dimension] = []
    for axis, size in enumerate(value.shape):
        if isinstance(size, int):
            shape.append(size)
            continue
        for name in size.free_symbols():
            sizes.setdefault(name, 1)
        if re.fullmatch(r"(\d+\*)?[A-Za-z_]\w*", str(size)):
            shape.append(str(size))
            continue
        name = names.name(str(size) if size.value else f"{UNKNOWN}{value.name}_{axis}", sizes)
        sizes.setdefault(name, _evaluated(size, sizes))
        shape.append(name)
    value.shape = ir.Shape(shape)
    return Input(str(value.name), tuple(shape), known.binding, known.per, value.dtype.numpy().name)  # pyright: ignore


def _evaluated(size: str | ir.SymbolicDim, sizes: Mapping[str, int]) -> int:
    """What a size is in the example; 1 where nobody knows."""
    example = (ir.SymbolicDim(size) if isinstance(size, str) else size).evaluate(sizes)
    return example if isinstance(example, int) else 1


def _declared(name: str, piece: Piece, inputs: Mapping[str, Input], sizes: Mapping[str, int]) -> HoistedPiece:
    """A piece with its interface; `inputs` are all that there may be."""
    graph = piece.model.graph
    graph.name = name
    sizes_taken = _take_sizes(graph, inputs)
    declared = tuple({**inputs, **sizes_taken}[str(value.name)] for value in graph.inputs)
    outputs = tuple(map(_output, graph.outputs))
    symbols = {split_dimension(size)[1] for entry in (*declared, *outputs) for size in entry.shape}
    return HoistedPiece(name, piece.model, declared, outputs, {key: sizes[key] for key in sorted(symbols - {""})})


def _take_sizes(graph: ir.Graph, inputs: Mapping[str, Input]) -> dict[str, Input]:
    """Where a part needs an input's sizes alone, it takes them as an input: `latents.shape`, int64 [rank]."""
    taken: dict[str, Input] = {}
    for value in list(graph.inputs):
        nodes = [use.node for use in value.uses()]
        if not nodes or value.is_graph_output() or not all(_is_shape(node, graph) for node in nodes):
            continue
        entry = inputs[str(value.name)]
        name = f"{entry.name}{SHAPE}"
        taken[name] = Input(name, (len(entry.shape),), *SIZES, "int64", shape_of=entry.name)
        shape = ir.Value(name=name, shape=ir.Shape([len(entry.shape)]), type=ir.TensorType(ir.DataType.INT64))
        for node in nodes:
            start, end = (attribute(node, key, default) for key, default in (("start", 0), ("end", len(entry.shape))))
            indices = ir.node("Constant", [], {"value_ints": list(range(len(entry.shape)))[start:end]})
            # A name that would be given to it could be that of another part's constant.
            indices.outputs[0].name = f"{node.outputs[0].name}.axes"
            gather = ir.node("Gather", [shape, indices.outputs[0]], {"axis": 0})
            ir.convenience.replace_nodes_and_values(
                graph, node, [node], [indices, gather], node.outputs, gather.outputs
            )
        graph.inputs[list(graph.inputs).index(value)] = shape
    return taken


def _is_shape(node: ir.Node, graph: ir.Graph) -> bool:
    return (node.domain, node.op_type) == ("", "Shape") and node.graph is graph


def _output(value: ir.Value) -> Output:
    assert value.dtype is not None and value.shape is not None
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return Output(str(value.name), shape, dtype=value.dtype.numpy().name)  # pyright: ignore[reportArgumentType]
