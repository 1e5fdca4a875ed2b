"""What is cut by binding time in tests: a conditioned model, and graphs that nobody had in mind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir
from hypothesis import strategies as st

from wanc.compiler.graphs.hoist import PARTS, HoistedPiece, Known, hoist
from wanc.models.graph import Input, Output

from .builder import parse

EVERY = tuple(PARTS.values())
SIZES = {"n": 3, "m": 2, "k": 4, "r": 1}
STEP, TIMESTEP, PROMPT = Known("step", "request"), Known("build", "expert"), Known("request", "branch")

BODY = """{
    one = Constant <value_ints = [1, 1, 1]> ()  t = Reshape (timestep, one)  embedded = MatMul (t, time.in.weight)
    gate = Sigmoid (embedded)  active = Mul (embedded, gate)  scale = MatMul (active, time.out.weight)

    zero = Constant <value_float = 0.0> ()  step = Constant <value_float = 1.0> ()  first = Constant <value_int = 1> ()
    sizes = Shape (latents)  tokens = Gather (sizes, first)  count = Cast <to = 1> (tokens)
    last = Constant <value_ints = [-1]> ()  line = Range (zero, count, step)  places = Unsqueeze (line, last)
    angles = MatMul (places, rope.weight)  table = Cos (angles)

    k = MatMul (prompt, block.to_k.weight)  kb = Add (k, block.to_k.bias)  v = MatMul (prompt, block.to_v.weight)

    scaled = Mul (latents, scale)  placed = Add (scaled, table)  q = MatMul (placed, block.to_q.weight)
    y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, kb, v)
}"""
INPUTS = {"latents": STEP, "timestep": TIMESTEP, "prompt": PROMPT}
WEIGHTS = {
    "time.in.weight": "[1, 8]",
    "time.out.weight": "[8, 8]",
    "rope.weight": "[1, 8]",
    "block.to_k.weight": "[6, 8]",
    "block.to_k.bias": "[8]",
    "block.to_v.weight": "[6, 8]",
    "block.to_q.weight": "[8, 8]",
}
HEADER = "float[1, n, 8] latents, float[1] timestep, float[1, m, 6] prompt"
SIZES_TRIED = ({"n": 1, "m": 1}, {"n": 5, "m": 3}, {"n": 4, "m": 7})


def conditioned() -> ir.Model:
    """A block of a conditioned model: modulated by a time, placed by a table, attending to a prompt."""
    weights = ", ".join(f"float{shape} {name}" for name, shape in WEIGHTS.items())
    return parse(f"g ({HEADER}, {weights}) => (float[1, n, 8] y) {BODY}", *WEIGHTS)


def cut(
    model: ir.Model,
    inputs: Mapping[str, Known],
    parts: Iterable[str] = EVERY,
    name: str = "main",
    named: Mapping[str, str] | None = None,
) -> list[HoistedPiece]:
    return hoist(name, model.clone(), *interface(model, inputs), SIZES, parts, named)


def interface(model: ir.Model, inputs: Mapping[str, Known]) -> tuple[tuple[Input, ...], tuple[Output, ...]]:
    """What a graph takes, as known at these times, and gives."""

    def shape(value: ir.Value) -> tuple[int | str, ...]:
        assert value.shape is not None
        return tuple(size if isinstance(size, int) else str(size) for size in value.shape)

    def dtype(value: ir.Value) -> str:
        assert value.dtype is not None
        return value.dtype.numpy().name

    declared = tuple(
        Input(str(value.name), shape(value), *inputs[str(value.name)], dtype(value))  # type: ignore[arg-type]
        for value in model.graph.inputs
    )
    outputs = (Output(str(value.name), shape(value), dtype=dtype(value)) for value in model.graph.outputs)  # type: ignore[arg-type]
    return declared, tuple(outputs)


TIMES = (*PARTS, STEP)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[str, dict[str, Known]]:
    """The text of a graph of [n, 4] matrices, and when its inputs are known."""
    inputs = {f"x{index}": draw(st.sampled_from(TIMES)) for index in range(draw(st.integers(1, 4)))}
    inputs["step"] = STEP
    names, nodes = list(inputs), []
    for index in range(draw(st.integers(1, 14))):
        out, left, right = f"v{index}", draw(st.sampled_from(names)), draw(st.sampled_from(names))
        kind = draw(st.sampled_from(("add", "multiply", "tanh", "product", "size", "index", "weights")))
        nodes.append(
            {
                "add": f"{out} = Add ({left}, {right})",
                "multiply": f"m{index} = Mul ({left}, {right})  {out} = Tanh (m{index})",
                "tanh": f"{out} = Tanh ({left})",
                "product": f"p{index} = MatMul ({left}, w.weight)  {out} = Tanh (p{index})",
                "size": f"s{index} = Shape ({left})  c{index} = Cast <to = 1> (s{index})"
                f"  r{index} = ReduceMean (c{index})  {out} = Add ({right}, r{index})",
                "index": f"i{index} = ArgMax <axis = 1, keepdims = 0> ({left})"
                f"  h{index} = Gather <axis = 0> (w.weight, i{index})  {out} = Add ({right}, h{index})",
                "weights": f"{out} = Add ({left}, u.weight)",
            }[kind]
        )
        names.append(out)
    values = [name for name in names if name.startswith("v")]
    outputs = draw(st.lists(st.sampled_from(values), unique=True, max_size=2))
    outputs = [*[name for name in outputs if name != values[-1]], values[-1]]
    header = ", ".join(f"float[n, 4] {name}" for name in inputs)
    results = ", ".join(f"float[n, 4] {name}" for name in outputs)
    text = f"g ({header}, float[4, 4] w.weight, float[4] u.weight) => ({results}) {{ {'  '.join(nodes)} }}"
    return text, inputs
