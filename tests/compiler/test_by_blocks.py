"""A graph cut by blocks: at any boundary the pieces are the graph, and between two of them a single value is alive."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.compiler.graphs.by_blocks import block_ends, block_of, cut_by_blocks, shared_weights
from wanc.compiler.graphs.lowerable import lowerable, piece_of
from wanc.compiler.graphs.pieces import ROUNDING, Piece
from wanc.compiler.program.program import Segment

from .passes.builder import Arrays, assert_close, noise, parse, run
from .transformer import BLOCKS, NAME, FloatDenoiser, make, quantised, sample

COUNT = 4
NAMES = tuple(f"blocks.{index}" for index in range(COUNT))


def residual(*, late: bool = False, turned: bool = False) -> ir.Model:
    """Blocks with a norm in front and a residual around, each with a row from a product that does not depend on x.

    The rows are all made `late`, in front of the first block, or `turned`: those of later blocks first.
    """
    rows = [f"c{index} = MatMul (t, blocks.{index}.table)" for index in range(COUNT)]
    blocks = [
        f"n{index} = LayerNormalization <axis = -1> (x{index}, ones)  s{index} = Mul (n{index}, c{index})"
        f"  p{index} = MatMul (s{index}, blocks.{index}.weight)  r{index} = Tanh (p{index})"
        f"  x{index + 1} = Add (x{index}, r{index})"
        for index in range(COUNT)
    ]
    rows = rows[::-1] if turned else rows
    body = [*rows, *blocks] if late or turned else [part for pair in zip(rows, blocks, strict=True) for part in pair]
    kinds = [f"float[4, 4] blocks.{index}.weight, float[2, 4] blocks.{index}.table" for index in range(COUNT)]
    weights = [f"{name}.{kind}" for name in NAMES for kind in ("weight", "table")]
    ends = "float[4] ones, float[4, 4] in.weight, float[4, 4] out.weight"
    header = f"float[n, 4] x, float[1, 2] t, {ends}, {', '.join(kinds)}"
    text = f"x0 = MatMul (x, in.weight)  {'  '.join(body)}  y = MatMul (x{COUNT}, out.weight)"
    return parse(f"g ({header}) => (float[n, 4] y) {{ {text} }}", "ones", "in.weight", "out.weight", *weights)


def executed(pieces: Sequence[Piece | None], feeds: Arrays) -> dict[str, np.ndarray]:
    known = dict(feeds)
    for piece in pieces:
        if piece is not None:
            known |= run(piece.model, {name: known[name] for name in piece.inputs})
    return known


def blocks_in(piece: Piece | None) -> set[int]:
    assert piece is not None
    found = {block_of(str(name), NAMES) for name in piece.model.graph.initializers}
    return {block for block in found if block is not None}


@pytest.mark.parametrize("form", [{}, {"late": True}, {"turned": True}], ids=["in line", "rows first", "turned"])
@given(st.sets(st.integers(1, COUNT - 1)), st.integers(1, 3))
def test_the_pieces_are_the_graph(form: dict[str, bool], starts: set[int], rows: int) -> None:
    model = residual(**form)
    pieces = cut_by_blocks(model, NAMES, sorted(starts))
    assert len(pieces) == len(starts) + 1
    for (first, stop), piece in zip(pairwise([0, *sorted(starts), COUNT]), pieces, strict=True):
        assert blocks_in(piece) == set(range(first, stop))
    feeds = noise(model, {"n": rows}, 0)
    assert_close(executed(pieces, feeds)["y"], run(model, feeds)["y"])


def test_a_single_value_is_handed_on() -> None:
    """What is behind the residual's sum; the norm of the next block is the next block's."""
    pieces = cut_by_blocks(residual(), NAMES, [1, 2, 3])
    assert [piece and piece.outputs for piece in pieces] == [["x1"], ["x2"], ["x3"], ["y"]]
    assert [piece and piece.inputs for piece in pieces] == [["x", "t"], ["t", "x1"], ["t", "x2"], ["t", "x3"]]


def test_what_is_past_is_turned_where_it_is_seen() -> None:
    """By a table that all blocks share; nothing of another block's past is handed on."""
    keys = [f"k{index} = Mul (past__{index}__key, turned)" for index in range(COUNT)]
    blocks = [
        f"p{index} = MatMul (x{index}, blocks.{index}.weight)  r{index} = Add (p{index}, k{index})"
        f"  x{index + 1} = Add (x{index}, r{index})"
        for index in range(COUNT)
    ]
    kinds = [f"float[4, 4] blocks.{index}.weight, float[n, 4] past__{index}__key" for index in range(COUNT)]
    text = f"turned = Cos (past_cos)  {'  '.join((*keys, *blocks))}"
    header = f"float[n, 4] x0, float[n, 4] past_cos, {', '.join(kinds)}"
    model = parse(f"g ({header}) => (float[n, 4] x{COUNT}) {{ {text} }}", *(f"{name}.weight" for name in NAMES))
    for value in model.graph.inputs:
        value.name = str(value.name).replace("__", ".")
    pieces = cut_by_blocks(model, NAMES, range(1, COUNT))
    for index, piece in enumerate(pieces):
        assert piece is not None
        assert [name for name in piece.inputs if name.startswith("past.")] == [f"past.{index}.key"]
        assert not {f"k{block}" for block in range(COUNT)} & {*piece.inputs}
    feeds = noise(model, {"n": 3}, 0)
    assert_close(executed(pieces, feeds)[f"x{COUNT}"], run(model, feeds)[f"x{COUNT}"])


def test_what_goes_from_block_to_block_has_a_name() -> None:
    assert block_ends(residual(), NAMES) == ["x1", "x2", "x3"]
    assert block_ends(residual(late=True), NAMES) == ["x1", "x2", "x3"]
    alone = parse("g (float[n, 4] x, float[4, 4] w) => (float[n, 4] y) { y = MatMul (x, w) }", "w")
    assert block_ends(alone, NAMES) == []


def test_a_graph_without_blocks_is_the_first_segment_s() -> None:
    model = parse("g (float[n, 4] x, float[4, 4] w) => (float[n, 4] y) { y = MatMul (x, w) }", "w")
    first, *others = cut_by_blocks(model, NAMES, [1, 2])
    assert first is not None and first.outputs == ["y"]
    assert others == [None, None]


def test_ten_is_not_one() -> None:
    assert block_of("blocks.10.weight", [f"blocks.{index}" for index in range(11)]) == 10
    assert block_of("blocks.1", ["blocks.0", "blocks.1"]) is None
    assert block_of("proj_out.weight", NAMES) is None


def test_weights_of_several_blocks_are_known_before_it_is_cut() -> None:
    """By where they lie, whatever they are called in one graph or the other."""
    weights = [f"{NAMES[0]}.weight", f"{NAMES[1]}.weight", "tied.weight"]
    model = parse(
        f"g (float[n, 4] x, {', '.join(f'float[4, 4] {name}' for name in weights)}) => (float[n, 4] y) {{"
        f" p = MatMul (x, {weights[0]})  q = MatMul (p, tied.weight)"
        f" r = MatMul (q, {weights[1]})  y = MatMul (r, tied.weight) }}",
        *weights,
    )
    places = {weights[0]: ("a", 0), weights[1]: ("a", 64), "tied.weight": ("b", 0)}
    for name, place in places.items():
        tensor = ir.ExternalTensor(*place, 64, ir.DataType.FLOAT, shape=ir.Shape([4, 4]), name=name)
        model.graph.initializers[name].const_value = tensor
    assert shared_weights([model], NAMES[:2]) == {places["tied.weight"]}


# A denoiser, cut by binding time as well


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> FloatDenoiser:
    return make(tmp_path_factory.mktemp("denoiser"))


@pytest.mark.parametrize("is_quantised", [False, True], ids=["float", "int8"])
def test_all_graphs_are_cut_at_the_same_blocks(
    denoiser: FloatDenoiser, is_quantised: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = denoiser.files
    if is_quantised:
        out = tmp_path_factory.mktemp("quantised") / "out"
        out.mkdir()
        files = denoiser.followed_by(quantised(denoiser, out)[0], out).files
    blocks = files.component.blocks
    for name, entry in lowerable(files).items():
        pieces = [
            piece_of(entry.model, blocks, Segment(NAME, index, index, index + 1, "cpu")) for index in range(BLOCKS)
        ]
        for index, piece in enumerate(pieces):
            assert piece is not None
            # The step of an input that several blocks share is called after the first of them.
            weights = [str(weight) for weight in piece.model.graph.initializers if ".input." not in str(weight)]
            assert {block_of(weight, blocks) for weight in weights} - {None} == {index}, name
            # What rounds for a product is where the product is.
            for node in piece.model.graph:
                if node.op_type in ROUNDING:
                    assert not any(value.is_graph_output() for value in node.outputs)
        first, *others = pieces
        assert first is not None
        handed = set(first.outputs) & {given for piece in others if piece for given in piece.inputs}
        assert len(handed) <= 1, name


def test_the_pieces_of_a_denoiser_compute_what_it_computes(denoiser: FloatDenoiser) -> None:
    feeds = sample(1)
    known = {**feeds, "latents.shape": np.array(feeds["latents"].shape, np.int64)}
    blocks = denoiser.component.blocks
    for entry in lowerable(denoiser.files).values():
        model = denoiser.uncut.fill(entry.model)
        known |= executed(
            [piece_of(model, blocks, Segment(NAME, index, index, index + 1, "cpu")) for index in range(BLOCKS)], known
        )
    assert_close(known["velocity"], denoiser.expected(feeds))
