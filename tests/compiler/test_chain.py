"""A graph executed piece by piece gives what it gives in one piece."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from wanc.calibration.schemes import SCHEMES
from wanc.compiler.graphs.lowerable import LowerableGraph
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.host.chain import Chain, execute
from wanc.compiler.host.reference import Reference
from wanc.compiler.host.sample_states import SampleStates
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import ProgramComponent, ProgramGraph
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import CheckpointError
from wanc.runtime.backends.onnxruntime import OnnxRuntime

from .passes.builder import assert_close, noise, parse, run
from .weighted import Array, Weighted, weighted

# Kernels sum in another order than the graph that is executed as it stands.
TOLERANCE = 1e-5
WIDTH = 8
SQUARE = 4 * WIDTH * WIDTH
GRAPH = f"""g (float[n, {WIDTH}] x, float[{WIDTH}] t, {", ".join(f"bfloat16[8, 8] {name}.weight" for name in "abc")})
 => (float[n, {WIDTH}] early, float[n, {WIDTH}] y) {{
    a_float = Cast <to = 1> (a.weight)  a_turned = Transpose <perm = [1, 0]> (a_float)
    b_float = Cast <to = 1> (b.weight)  b_turned = Transpose <perm = [1, 0]> (b_float)
    c_float = Cast <to = 1> (c.weight)  c_turned = Transpose <perm = [1, 0]> (c_float)
    p = MatMul (x, a_turned)  early = Tanh (p)  shifted = Add (early, t)
    q = MatMul (shifted, b_turned)  h = Sin (q)  shift = Mul (h, t)
    r = MatMul (shift, c_turned)  y = Add (r, x) }}"""


def graph() -> ir.Model:
    return parse(GRAPH, *(f"{name}.weight" for name in "abc"))


@pytest.fixture
def made(tmp_path: Path) -> Weighted:
    return weighted(graph(), tmp_path)


@pytest.fixture
def chain(made: Weighted, tmp_path: Path) -> Callable[..., Chain]:
    """`chain(most_weight_bytes, *taps)`."""

    def of(most: int, *taps: str) -> Chain:
        folder = tmp_path / "chain"
        folder.mkdir()
        return Chain(made.model, made.files, folder, FiniteCheck("denoiser"), taps=taps, most_weight_bytes=most)

    return of


def requests(model: ir.Model, *sizes: int) -> list[dict[str, Array]]:
    return [dict(noise(model, {"n": size}, seed)) for seed, size in enumerate(sizes)]


@pytest.mark.parametrize(("most", "pieces"), [(3 * SQUARE, 1), (2 * SQUARE, 2), (SQUARE, 3)])
def test_in_pieces_it_gives_the_same(made: Weighted, chain: Callable[..., Chain], most: int, pieces: int) -> None:
    """For several inputs at a time, of different sizes, twice; and nothing but the graph's outputs is left."""
    tried = chain(most)
    assert len(tried.pieces) == pieces
    for given in (requests(made.model, 1, 5, 3), requests(made.model, 7)):
        results = tried.run(given)
        assert [set(result) for result in results] == [{"early", "y"}] * len(given)
        for feeds, result in zip(given, results, strict=True):
            for name, expected in run(made.filled, feeds).items():
                assert_close(result[name], expected, TOLERANCE)


def test_a_mask_that_one_row_stands_for_is_taken(tmp_path: Path) -> None:
    """ONNX Runtime's kernel has none such, and would not execute the graph."""
    one, every = (
        parse(f"""g (float[1, n, 8] x, float[1, 1, {rows}, n] mask) => (float[1, n, 8] y) {{
            y = Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, x, mask) }}""")
        for rows in ("1", "n")
    )
    (given,) = requests(one, 5)
    (result,) = Chain(one, {}, tmp_path, FiniteCheck("denoiser")).run([given])
    stretched = {**given, "mask": np.broadcast_to(given["mask"], (1, 1, 5, 5)).copy()}
    assert_close(result["y"], run(every, stretched)["y"], TOLERANCE)


def test_what_is_given_stays_as_it_is(made: Weighted, chain: Callable[..., Chain]) -> None:
    (given,) = requests(made.model, 2)
    before = dict(given)
    chain(SQUARE).run([given])
    assert given == before


def test_what_later_pieces_take(chain: Callable[..., Chain]) -> None:
    tried = chain(SQUARE)
    assert [piece.inputs for piece in tried.pieces] == [["x"], ["t", "early"], ["x", "shift"]]
    assert [tried.needed_behind(index) for index in range(3)] == [
        {"early", "t", "shift", "x", "y"},
        {"shift", "x", "early", "y"},
        {"early", "y"},
    ]


def test_taps_are_outputs_of_the_piece_that_they_lie_in(made: Weighted, chain: Callable[..., Chain]) -> None:
    """One that an output of the piece is already is given once; one that is an input is no output."""
    tried = chain(SQUARE, "p", "early", "q", "x")
    (state,) = requests(made.model, 4)
    inside = made.filled.clone()
    values = {str(value.name): value for node in inside.graph for value in node.outputs}
    inside.graph.outputs.extend(values[name] for name in ("p", "q"))
    expected = run(inside, state)
    seen: list[set[str]] = []
    for index, piece in enumerate(tried.pieces):
        with tried.open(index) as session:
            assert len(session.outputs) == len(set(session.outputs))
            outputs = execute(session, piece, state)
        seen.append(set(outputs))
        state |= outputs
    assert seen == [{"early", "p"}, {"shift", "q"}, {"y"}]
    for name, array in expected.items():
        assert_close(state[name], array, TOLERANCE)


def test_taps_do_not_pile_up(chain: Callable[..., Chain], made: Weighted) -> None:
    (result,) = chain(SQUARE, "p", "q").run(requests(made.model, 2))
    assert set(result) == {"early", "y"}


@pytest.mark.parametrize(("most", "stays"), [(3 * SQUARE, True), (SQUARE, False)])
def test_one_piece_stays_open(chain: Callable[..., Chain], most: int, stays: bool) -> None:
    """Of several, memory holds the one that is executed."""
    tried = chain(most)
    with tried.open(0) as first:
        pass
    with tried.open(0) as second:
        assert (second is first) == stays


@pytest.mark.parametrize("most", [3 * SQUARE, SQUARE])
def test_a_piece_that_is_forgotten_leaves_no_file(chain: Callable[..., Chain], tmp_path: Path, most: int) -> None:
    """And is there again when it is used again."""
    tried = chain(most)
    for index in (0, 0, *range(len(tried.pieces))):
        with tried.open(index) as session:
            assert session.outputs
        assert sum(path.name.startswith(f"piece-{index}.") for path in tmp_path.rglob("*")) == 2
        tried.forget(index)
        tried.forget(index)
        assert [path for path in tmp_path.rglob("*") if path.name.startswith("piece-")] == []


def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    made = weighted(graph(), tmp_path, lambda name, values: values * np.nan if name == "b.weight" else values)
    (tmp_path / "chain").mkdir()
    tried = Chain(made.model, made.files, tmp_path / "chain", FiniteCheck("denoiser"), most_weight_bytes=SQUARE)
    with pytest.raises(CheckpointError, match=r"denoiser: tensor b\.weight holds 64 values that are not finite"):
        tried.run(requests(made.model, 2))


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_quantised_linears_are_computed_as_they_stand(made: Weighted, scheme: str, tmp_path: Path) -> None:
    """Against the same graph without any optimisation; one that rounds inputs is 1 % away from one that does not."""
    format = SCHEMES[scheme]
    changed = made.filled.clone()
    decisions: dict[str, StoredDecision] = {}
    for name in "abc":
        tensor = changed.graph.initializers[f"{name}.weight"].const_value
        assert tensor is not None
        codes = format.codes(tensor.numpy().astype(np.float32))
        typed = ir.tensor(codes.values.astype("int4") if format.weights == "int4" else codes.values)
        scales = ir.tensor(codes.scales[:, 0])
        decisions[name] = StoredDecision(typed, scales, None, format.inputs, 0.03 if format.is_static else None)
    assert insert_quantizers(changed, decisions) == 3
    (tmp_path / "chain").mkdir()
    tried = Chain(changed, {}, tmp_path / "chain", FiniteCheck("denoiser"), most_weight_bytes=SQUARE)
    given = requests(made.model, 3, 6)
    for feeds, result in zip(given, tried.run(given), strict=True):
        for name, expected in run(changed, feeds).items():
            assert_close(result[name], expected, TOLERANCE)
            assert np.abs(run(made.filled, feeds)[name] - expected).max() > 100 * TOLERANCE * np.abs(expected).max()


# What is known of every sample


def test_samples_states_on_disk(tmp_path: Path) -> None:
    asked: list[int] = []

    def sample(number: int) -> dict[str, Array]:
        asked.append(number)
        return {"x": np.full(3, number, np.float32), "t": np.zeros(1, np.float32)}

    states = SampleStates([lambda: sample(0), lambda: sample(1)], tmp_path)
    assert len(states) == 2
    for number in range(2):
        states.write(number, {"h/0": states.read(number, ["x"])["x"] + 10, "k": np.full((1, 2), number)})
    assert asked == [0, 1]
    both = states.read(1, ["h/0", "x", "k"])
    np.testing.assert_array_equal(both["h/0"], [11, 11, 11])
    np.testing.assert_array_equal(both["x"], [1, 1, 1])
    asked.clear()
    np.testing.assert_array_equal(states.read(0, ["k"])["k"], [[0, 0]])
    assert asked == [], "what a piece gave needs no sample"


def test_what_no_later_piece_takes_leaves_the_disk(tmp_path: Path) -> None:
    states = SampleStates([dict, dict], tmp_path)
    for number in range(2):
        states.write(number, {"h": np.zeros(2), "k": np.ones(3)})
    assert len(list(tmp_path.glob("*.npy"))) == 4
    states.pass_segment({"k", "x"})
    assert len(list(tmp_path.glob("*.npy"))) == len(list(tmp_path.glob("*.npy.kept"))) == 2
    with pytest.raises(KeyError):
        states.read(0, ["h"])
    states.write(0, {"l": np.full(1, 5)})
    np.testing.assert_array_equal(states.read(0, ["k", "l"])["k"], [1, 1, 1])
    states.write(0, {"k": np.zeros(1)})
    np.testing.assert_array_equal(states.read(0, ["k"])["k"], [0])


def test_samples_go_on_where_all_of_them_were(tmp_path: Path) -> None:
    """What a segment had given for some of them only is forgotten."""
    first = SampleStates([dict, dict], tmp_path)
    for number in range(2):
        first.write(number, {"h": np.full(2, number), "k": np.zeros(1)})
    first.pass_segment({"h"})
    first.write(0, {"l": np.ones(1)})
    second = SampleStates([dict, dict], tmp_path)
    assert second.passed == 1
    np.testing.assert_array_equal(second.read(1, ["h"])["h"], [1, 1])
    assert len(list(tmp_path.glob("*.npy"))) == 2
    for number in range(2):
        second.write(number, {"l": np.full(1, number)})
    second.pass_segment({"l"})
    third = SampleStates([dict, dict], tmp_path)
    assert third.passed == 2
    np.testing.assert_array_equal(third.read(1, ["l"])["l"], [1])


@pytest.mark.parametrize("name", ["state-1-0.npy", "samples.json"])
def test_samples_of_which_one_is_damaged_start_over(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    states = SampleStates([dict, dict], tmp_path)
    for number in range(2):
        states.write(number, {"h": np.full(2, number)})
    states.pass_segment({"h"})
    data = bytearray((tmp_path / name).read_bytes())
    data[-2] ^= 1
    (tmp_path / name).write_bytes(data)
    assert SampleStates([dict, dict], tmp_path).passed == 0
    assert list(tmp_path.glob("*.npy")) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / name} is not what was kept: it is made again"
    ]


def test_a_reference_does_not_depend_on_the_cores(tmp_path: Path) -> None:
    """A golden record has to be the same wherever it is made. Of such a product the sums are parted among threads."""
    model = parse("g (float[3, 4096] x, float[4096, 64] w) => (float[3, 64] y) { y = MatMul (x, w) }")
    save(model, tmp_path / "g.onnx")
    feeds = noise(model, {}, 0)
    by_threads = {threads: OnnxRuntime(tmp_path / "g.onnx", threads).run(feeds)[0] for threads in (1, 2)}
    assert (by_threads[1] != by_threads[2]).any()
    files = ComponentFiles("model", ProgramComponent({}, {}), {}, {})
    nothing = ProgramGraph(None, (), (), {})
    graphs = {"main": LowerableGraph(nothing, model, nothing, {})}
    found = Reference(files, graphs, tmp_path / "reference").run("main", feeds)["y"]
    np.testing.assert_array_equal(found, by_threads[1])
