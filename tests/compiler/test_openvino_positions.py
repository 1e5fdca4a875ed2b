"""Positions and conditions that are computed of floats are exact where products are in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.program.graph_file import save
from wanc.runtime.backends.openvino import OpenVino
from wanc.words import Island

Array = np.ndarray[Any, Any]
ROWS, WIDTH = 300, 8
ISLANDS: tuple[Island, ...] = ("residual", "modulation", "norm", "rope")

CASES = {
    "the nearest row of an upsampling": """
        twice = Mul (rows, two)
        places = Range (zero, twice, one)
        places_f = Cast <to = 1> (places)
        middle = Add (places_f, half)
        scaled = Mul (middle, half)
        at = Cast <to = 7> (scaled)
        taken = Gather <axis = 0> (x, at)""",
    "the row below a share of the length": """
        places = Range (zero, rows, one)
        places_f = Cast <to = 1> (places)
        scaled = Mul (places_f, share)
        below = Floor (scaled)
        at = Cast <to = 7> (below)
        taken = Gather <axis = 0> (x, at)""",
    "a chain of sums and products, some of them asked for twice": """
        places = Range (zero, rows, one)
        places_f = Cast <to = 1> (places)
        middle = Add (places_f, half)
        scaled = Mul (middle, half)
        behind = Sub (limit, scaled)
        back = Sub (limit, behind)
        low = Mul (back, half)
        at = Cast <to = 7> (back)
        other = Cast <to = 7> (low)
        rest = Sub (at, other)
        taken = Gather <axis = 0> (x, rest)""",
    "a share by division": """
        places = Range (zero, rows, one)
        places_f = Cast <to = 1> (places)
        middle = Add (places_f, half)
        scaled = Div (middle, three)
        at = Cast <to = 7> (scaled)
        taken = Gather <axis = 0> (x, at)""",
    "a count of floats": """
        rows_f = Cast <to = 1> (rows)
        places_f = Range (zero_f, rows_f, one_f)
        at = Cast <to = 6> (places_f)
        taken = Gather <axis = 0> (x, at)""",
    "a limit": """
        places = Range (zero, rows, one)
        places_f = Cast <to = 1> (places)
        is_ahead = Less (places_f, limit)
        column = Unsqueeze (is_ahead, last)
        taken = Where (column, x, zero_f)""",
    "equal places": """
        places = Range (zero, rows, one)
        places_f = Cast <to = 1> (places)
        scaled = Mul (places_f, share)
        below = Floor (scaled)
        is_there = Equal (below, place)
        column = Unsqueeze (is_there, last)
        taken = Where (column, x, zero_f)""",
    "the largest of an input": """
        best = ArgMax <axis = 0, keepdims = 1> (score)
        taken = Gather <axis = 0> (x, best)""",
}


def model(body: str) -> ir.Model:
    """`taken` are rows of `x`, whose columns a product turns round: what precedes one may be in bfloat16."""
    turned = ", ".join(map(str, np.eye(WIDTH)[::-1].ravel()))
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    g (float[rows, {WIDTH}] x, float[rows] score) => (float[made, {WIDTH}] y)
    <int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}, int64[1] last = {{-1}}, float half = {{0.5}},
     float three = {{3.0}}, float share = {{0.7}}, float limit = {{201.5}}, float place = {{201.0}},
     float zero_f = {{0.0}}, float one_f = {{1.0}}, float[{WIDTH}, {WIDTH}] weight = {{{turned}}}> {{
        shape = Shape <start = 0, end = 1> (x)
        rows = Squeeze (shape)
        {body}
        y = MatMul (taken, weight)
    }}"""
    return ir.from_proto(onnx.parser.parse_model(text))


def executed(found: ir.Model, folder: Path, compute: str, inputs: dict[str, Array]) -> Array:
    folder.mkdir()
    save(found, folder / "step.onnx")
    compiler = OpenVinoCompiler(compute, ISLANDS)
    (made,) = compiler.compile("part", {"step": LoweredGraph(folder / "step.onnx")}, frozenset()).values()
    return OpenVino(made, threads=1).run(inputs)[0]


@pytest.mark.parametrize("case", CASES)
def test_positions_of_many_rows_are_those_of_float32(case: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.integers(-128, 128, (ROWS, WIDTH)).astype(np.float32)  # whole numbers that bfloat16 has
    score = (1000 + 0.01 * random.permutation(ROWS)).astype(np.float32)
    inputs = {"x": x, "score": score}
    floats, halves = (executed(model(CASES[case]), tmp_path / each, each, inputs) for each in ("fp32", "bf16"))
    assert len(np.unique(floats)) > 1
    np.testing.assert_array_equal(halves, floats)
