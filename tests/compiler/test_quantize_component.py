"""A component quantised on samples: close to what it was, the same whatever its segments, and told as it is."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx.shape_inference
import onnx_ir as ir
import pytest

from wanc.calibration.schemes import SCHEMES, rounded_inputs
from wanc.calibration.smoothing import ChannelStatistics, channel_scales
from wanc.calibration.weights import sqnr_db
from wanc.compiler.graphs.attentions import attentions
from wanc.compiler.graphs.by_blocks import cut_by_blocks
from wanc.compiler.graphs.linears import linears
from wanc.compiler.host.chain import Chain, execute
from wanc.compiler.host.sample_states import Sample
from wanc.compiler.program.probes import Probes
from wanc.compiler.program.quant_table import AttentionEntry, QuantTable
from wanc.compiler.quantize import quantized_graphs
from wanc.compiler.quantize.decisions import Settings, decide
from wanc.compiler.quantize.group_decision import GroupDecision
from wanc.compiler.quantize.linear_groups import LinearGroup, choose
from wanc.compiler.quantize.quantized_graphs import QuantizedGraphs
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.weight_file import float_values
from wanc.errors import CheckpointError, UserError

from .fusing import files_of
from .passes.builder import assert_close, run, without_weights
from .transformer import (
    BLOCKS,
    KEEP,
    NAME,
    SAMPLES,
    WIDTH,
    Denoiser,
    FloatDenoiser,
    make,
    quantised,
    sample,
    samples,
)
from .weighted import Array

UNSEEN = (9, 10)

# Of one Linear, codes of 8 bits leave 39 dB, an fp8 mantissa 29 and 4 bits 19; inputs in 8 bits with a few large
# channels cost some 5 dB. A dozen Linears and two softmaxes, one after the other, cost about as much again. A scale, an
# axis or a divisor at the wrong place leaves less than 5 dB.
LEAST_DB = {"int8": 24.0, "int8-dynamic": 25.0, "int8-weight": 33.0, "int4-weight": 10.0, "fp8": 16.0}
# Folding divides and multiplies in float32, before the same sums.
FOLDED = 2e-5


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> FloatDenoiser:
    return make(tmp_path_factory.mktemp("denoiser"))


@dataclass(frozen=True)
class Quantised:
    denoiser: Denoiser
    table: QuantTable
    out: Path

    @property
    def files(self) -> dict[str, bytes]:
        return {name: path.read_bytes() for name, path in files_of(self.out).items()}


Quantise = Callable[..., Quantised]


@pytest.fixture(scope="module")
def quantise(denoiser: FloatDenoiser, tmp_path_factory: pytest.TempPathFactory) -> Quantise:
    """`quantise(scheme, alpha, keep)` is computed once, unless it is asked for `anew` or with samples of its own."""
    done: dict[tuple[str, str | float, tuple[str, ...]], Quantised] = {}

    def compute(scheme: str, alpha: str | float, keep: tuple[str, ...], given: Sequence[Sample]) -> Quantised:
        out = tmp_path_factory.mktemp("quantised") / "out"
        out.mkdir()
        component, table = quantised(denoiser, out, scheme, alpha, keep, given)
        assert [path.name for path in out.parent.iterdir()] == ["out"], "nothing else is left"
        return Quantised(denoiser.followed_by(component, out), table, out)

    def once(
        scheme: str,
        alpha: str | float = "search",
        keep: tuple[str, ...] = KEEP,
        given: Sequence[Sample] | None = None,
        *,
        anew: bool = False,
    ) -> Quantised:
        if anew or given is not None:
            return compute(scheme, alpha, keep, samples() if given is None else given)
        if (scheme, alpha, keep) not in done:
            done[scheme, alpha, keep] = compute(scheme, alpha, keep, samples())
        return done[scheme, alpha, keep]

    return once


def unseen_db(quantised: Denoiser, denoiser: FloatDenoiser, folder: Path) -> float:
    """What is left of the outputs on samples that calibration has not seen; the worst of them."""
    return min(
        sqnr_db(quantised.velocity(sample(number), folder / f"run-{number}"), denoiser.expected(sample(number)))
        for number in UNSEEN
    )


# What it computes


def test_the_denoiser_is_what_it_was_cut_from(denoiser: FloatDenoiser, tmp_path: Path) -> None:
    given = sample(0)
    assert_close(denoiser.velocity(given, tmp_path / "run"), denoiser.expected(given), 1e-5)


@pytest.mark.parametrize(
    ("scheme", "alpha"),
    [*((scheme, "search") for scheme in SCHEMES), ("int8", "none"), ("int8", 0.5), ("int8-dynamic", 0.5)],
)
def test_every_scheme_is_close(
    quantise: Quantise, denoiser: FloatDenoiser, scheme: str, alpha: str | float, tmp_path: Path
) -> None:
    made = quantise(scheme, alpha)
    assert LEAST_DB[scheme] < unseen_db(made.denoiser, denoiser, tmp_path) < LEAST_DB[scheme] + 20


def test_linears_that_stay_in_float_beside_others_make_up_for_smoothing(
    quantise: Quantise, denoiser: FloatDenoiser, tmp_path: Path
) -> None:
    """q is quantised, k and v are not, and the three share a divided input; v's rows are divided as well."""
    made = quantise("int8", 0.5, keep=("*.to_k", "*.to_v"))
    assert made.table.linears["blocks.0.attn1.to_q"].alpha == 0.5
    assert unseen_db(made.denoiser, denoiser, tmp_path) > LEAST_DB["int8"]


def test_a_norm_that_is_not_divided_is_noticed(
    quantise: Quantise, denoiser: FloatDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized_graphs, "divide", lambda model, divisors: 0)
    assert unseen_db(quantise("int8", 0.5, anew=True).denoiser, denoiser, tmp_path) < 15


def forced(group: LinearGroup, divisors: Array) -> GroupDecision:
    """A group that is smoothed and otherwise left in float."""
    return GroupDecision(group, 0.5, divisors, None, {}, {}, 1.0, np.empty(0, np.float32), {})


def test_smoothing_alone_changes_nothing(denoiser: FloatDenoiser, tmp_path: Path) -> None:
    """Whatever the divisors: a hundredfold from one channel to the next."""
    choice = choose(denoiser.whole(), NAME, [])
    foldable = [group for group in choice.groups if group.fold is not None]
    assert len(foldable) == 5 * BLOCKS
    out = tmp_path / "out"
    with QuantizedGraphs(denoiser.files, choice, "int8", out) as graphs:
        for seed, group in enumerate(foldable):
            divisors = np.exp(np.random.default_rng(seed).normal(0, 2, group.channels)).astype(np.float32)
            graphs.add(forced(group, divisors))
        component = graphs.component()
    smoothed = denoiser.followed_by(component, out)
    for part in smoothed.parts().values():  # also where a weight of another type was turned
        proto = ir.to_proto(without_weights(part))
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    for number in UNSEEN:
        actual = smoothed.velocity(sample(number), tmp_path / f"run-{number}")
        assert_close(actual, denoiser.expected(sample(number)), FOLDED)


def test_nothing_to_quantise(quantise: Quantise, denoiser: FloatDenoiser, tmp_path: Path) -> None:
    made = quantise("int8", keep=("*",))
    assert made.table.quantized == {}
    assert made.denoiser.component == denoiser.component
    given = sample(0)
    assert_close(made.denoiser.velocity(given, tmp_path / "run"), denoiser.expected(given), 1e-5)


# Attentions


def test_attentions_are_rounded_by_what_they_take(denoiser: FloatDenoiser, tmp_path: Path) -> None:
    """The scales are the largest magnitudes of all samples; what a keep pattern fits stays in float."""
    (tmp_path / "out").mkdir()
    keep = (*KEEP, "blocks.1.attn2")
    component, table = quantised(denoiser, tmp_path / "out", "fp8", keep=keep, attention="fp8")
    names = [f"blocks.{block}.attn{number}" for block in range(BLOCKS) for number in (1, 2)]
    assert list(table.attentions) == [names[-1], *names[:-1]]
    assert table.attentions[names[-1]] == AttentionEntry("float", "keep pattern blocks.1.attn2", 1.0)
    assert {table.attentions[name].probability_scale for name in names[:-1]} == {0.00223214}
    made = denoiser.followed_by(component, tmp_path / "out")
    rounded = {attention.name: attention.numbers for attention in attentions(made.whole())}
    assert rounded == {**dict.fromkeys(names[:-1], "fp8"), names[-1]: "float"}
    in_step = {attention.name: attention.numbers for attention in attentions(made.parts()["step"])}
    assert in_step == rounded, "keys and values that a request knows are rounded where they are multiplied"
    cut = cut_by_blocks(made.parts()["step"], made.component.blocks, [1])
    of_pieces = [attention for piece in cut if piece is not None for attention in attentions(piece.model)]
    assert {attention.name: attention.numbers for attention in of_pieces} == rounded
    chain = Chain(
        denoiser.whole(), denoiser.weights, tmp_path, FiniteCheck(NAME), taps=["b0_q", "b0_k", "b0_v", "b0_ck"]
    )
    seen = {"b0_q": 0.0, "b0_k": 0.0, "b0_v": 0.0, "b0_ck": 0.0}
    for given in samples():
        with chain.open(0) as session:
            found = execute(session, chain.pieces[0], given())
        seen = {name: max(peak, float(np.abs(found[name]).max())) for name, peak in seen.items()}
    entry, crossed = table.attentions["blocks.0.attn1"], table.attentions["blocks.0.attn2"]
    told = (entry.query_scale, entry.key_scale, entry.value_scale, crossed.key_scale)
    assert told == pytest.approx([peak / 448 for peak in seen.values()], rel=1e-5)
    # Its own products cost as much as those of Linears, and a wrong scale leaves less than 5 dB.
    assert unseen_db(made, denoiser, tmp_path) > LEAST_DB["fp8"] - 3


def test_attentions_stay_in_float_unless_it_is_asked_for(quantise: Quantise) -> None:
    made = quantise("fp8")
    assert {entry.scheme for entry in made.table.attentions.values()} == {"float"}
    assert {attention.numbers for attention in attentions(made.denoiser.whole())} == {"float"}


@pytest.mark.parametrize(
    ("factor", "bias", "message", "hint"),
    [
        (0.0, 0.0, "the keys of blocks.1.attn2 were 0 in all samples", r"quantize.keep.patterns: \[blocks.1.attn2\]"),
        (
            1e38,
            3.3e38,
            "b1_ck, which an attention takes, is not finite in a sample",
            "the float model itself overflows",
        ),
    ],
)
def test_an_attention_of_which_samples_say_nothing_is_refused(
    factor: float, bias: float, message: str, hint: str, tmp_path: Path
) -> None:
    def change(name: str, values: Array) -> Array:
        values = values.astype(np.float32)
        if name == "blocks.1.attn2.to_k.bias":
            return np.full_like(values, bias)
        return values * np.float32(factor if name == "blocks.1.attn2.to_k.weight" else 0.1)

    denoiser = make(tmp_path, change)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        quantised(denoiser, tmp_path / "out", "fp8", keep=(*KEEP, "*.to_k", "*.to_out"), attention="fp8")
    assert re.search(hint, str(caught.value.hint))


# What is written


@pytest.mark.parametrize("scheme", ["int8", "int4-weight"])
def test_a_second_run_gives_the_same_bytes(quantise: Quantise, scheme: str) -> None:
    first, second = quantise(scheme), quantise(scheme, anew=True)
    assert first.table == second.table
    assert first.files == second.files
    assert first.denoiser.component == second.denoiser.component


@pytest.mark.parametrize("scheme", ["none", *SCHEMES])
def test_the_number_of_threads_makes_no_difference(
    quantise: Quantise, denoiser: FloatDenoiser, scheme: str, tmp_path: Path
) -> None:
    """So calibration gives the same on any number of cores, bit by bit."""
    model: Denoiser = denoiser if scheme == "none" else quantise(scheme).denoiser
    found: list[bytes] = []
    for threads in (1, 2, 3, 7, 16):
        folder = tmp_path / str(threads)
        folder.mkdir()
        chain = Chain(model.whole(), model.weights, folder, FiniteCheck(NAME), threads=threads)
        (outputs,) = chain.run([sample(1)])
        found.append(outputs["velocity"].tobytes())
    assert len(set(found)) == 1


def test_graphs_and_weights_name_each_other(quantise: Quantise) -> None:
    """Every weight that a graph has is listed as it is there, and what nothing refers to is not."""
    made = quantise("int8", 0.5)
    component = made.denoiser.component
    named: set[str] = set()
    for part in made.denoiser.parts().values():
        for name, value in part.graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                tensor, weight = value.const_value, component.weights[name]
                assert (tensor.location, tensor.offset, tensor.length) == (weight.file, weight.offset, weight.length)
                assert (tensor.dtype.name, tuple(tensor.shape.numpy())) == (weight.dtype, weight.shape)
                named.add(name)
    assert named == component.weights.keys()


def test_the_parts_keep_what_they_take_and_give(quantise: Quantise, denoiser: FloatDenoiser) -> None:
    made = quantise("int8", 0.5)
    assert made.denoiser.component.graphs == denoiser.component.graphs
    for name, part in made.denoiser.parts().items():
        before = denoiser.parts()[name]
        assert [value.name for value in part.graph.inputs] == [value.name for value in before.graph.inputs]
        assert [value.name for value in part.graph.outputs] == [value.name for value in before.graph.outputs]


# The table


def test_the_table_lists_every_linear(quantise: Quantise, denoiser: FloatDenoiser) -> None:
    table = quantise("int8").table
    assert list(table.linears) == [linear.name for linear in linears(denoiser.whole())]
    assert (table.component, table.method, table.samples) == (NAME, "ptq", SAMPLES)
    floats = {name: entry.reason for name, entry in table.linears.items() if entry.scheme == "float"}
    assert floats == {
        "time.up": "keep pattern time",
        "time.proj": "keep pattern time",
        "proj_out": "keep pattern proj_out",
    }
    assert {(entry.scheme, entry.reason) for entry in table.quantized.values()} == {("int8", "no keep pattern fits")}
    positions = {name.split(".")[1]: entry.position for name, entry in table.linears.items() if "blocks" in name}
    assert positions == {"0": 0.0, "1": 1.0}
    assert table.linears["proj_in"].position is None


def rows_of(name: str) -> float:
    """On average over the samples: of a timestep, of a text of 5 tokens, and of 12 or 20 tokens."""
    return 1 if name.startswith("time") else 5 if name.endswith(("attn2.to_k", "attn2.to_v")) else 16


@pytest.mark.parametrize("keep", [KEEP, (), ("blocks.0", "proj_in")])
def test_shares_are_those_of_the_rows_that_linears_take(
    quantise: Quantise, denoiser: FloatDenoiser, keep: tuple[str, ...]
) -> None:
    """Those that stay in float as well."""
    entries = quantise("int8-weight", keep=keep).table.linears
    flops = {linear.name: linear.flops_per_row * rows_of(linear.name) for linear in linears(denoiser.whole())}
    total = sum(flops.values())
    assert sum(entry.flops_share for entry in entries.values()) == pytest.approx(1)
    assert {name: entry.flops_share for name, entry in entries.items()} == pytest.approx(
        {name: share / total for name, share in flops.items()}
    )


def activations(denoiser: FloatDenoiser, names: Sequence[str]) -> dict[str, Array]:
    """What Linears take of all samples, float32 [rows, in], by name."""
    model = denoiser.whole()
    filled = denoiser.uncut.filled.clone()
    inputs = {linear.name: linear.input.name for linear in linears(model)}
    by_name = {str(value.name): value for node in filled.graph for value in node.outputs}
    filled.graph.outputs.extend(value for name, value in by_name.items() if name in {inputs[name] for name in names})
    results = [{**sample(number), **run(filled, sample(number))} for number in range(SAMPLES)]
    found = {name: [result[str(inputs[name])] for result in results] for name in names}
    return {
        name: np.concatenate([rows.reshape(-1, rows.shape[-1]) for rows in arrays]) for name, arrays in found.items()
    }


def original(denoiser: FloatDenoiser) -> dict[str, Array]:
    """The weights of Linears, float32 [out, in], by name."""
    found = {linear: linear.weight.const_value for linear in linears(denoiser.uncut.filled)}
    arrays = {linear: tensor.numpy().astype(np.float32) for linear, tensor in found.items() if tensor is not None}
    return {linear.name: array if linear.output_axis == 0 else array.T for linear, array in arrays.items()}


def written(made: Quantised, name: str) -> Array:
    """What the codes of a Linear stand for, float32 [out, in]."""
    (part,) = [part for part in made.denoiser.parts().values() if f"{name}.weight.codes" in part.graph.initializers]
    codes, scales = (part.graph.initializers[f"{name}.weight.{kind}"].const_value for kind in ("codes", "scales"))
    assert isinstance(codes, ir.ExternalTensor) and scales is not None
    data = np.fromfile(made.denoiser.weights[codes.location], np.uint8, codes.length, offset=codes.offset)
    values = data.view(codes.dtype.numpy()).reshape(codes.shape.numpy()).astype(np.float32)
    steps = float_values(scales, made.denoiser.weights)
    return values * steps[:, None] if len(steps) == len(values) else (values * steps).T


MEASURED = ["proj_in", "blocks.0.attn1.to_q", "blocks.1.ffn.up", "blocks.1.ffn.down"]


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weight", "fp8"])
def test_what_is_told_of_a_linear_is_what_its_codes_give(
    quantise: Quantise, denoiser: FloatDenoiser, scheme: str
) -> None:
    """The probes are rows of real inputs, and the SQNR that of what the written codes make of them."""
    made, weights = quantise(scheme, "none"), original(denoiser)
    probes = Probes(files_of(made.out), NAME)
    for name, rows in activations(denoiser, MEASURED).items():
        entry, probe = made.table.linears[name], probes[name]
        nearest = np.abs(probe.inputs[:, None] - rows[None]).max(axis=2).min(axis=1)
        np.testing.assert_allclose(nearest, 0, atol=1e-4 * np.abs(rows).max())
        np.testing.assert_allclose(probe.outputs, probe.inputs @ weights[name].T, rtol=1e-4, atol=1e-4)
        rounded = rounded_inputs(probe.inputs, SCHEMES[scheme].inputs, entry.activation_scale)
        expected = sqnr_db(rounded @ written(made, name).T, probe.outputs)
        assert entry.sqnr_db == pytest.approx(expected, abs=1e-3)
        assert (entry.activation_scale is None) == (scheme in ("int8-dynamic", "int8-weight"))


def test_smoothing_that_is_asked_for_is_that_of_the_samples(quantise: Quantise, denoiser: FloatDenoiser) -> None:
    """The written codes are those of the weight, multiplied by the divisors that the samples' peaks give."""
    made, names = quantise("int8", 0.5), [f"blocks.1.attn1.to_{part}" for part in "qk"]
    floats = {name: original(denoiser)[name] for name in (*names, "blocks.1.attn1.to_v")}
    statistics = ChannelStatistics.of_width(WIDTH)
    statistics.add(activations(denoiser, names)[names[0]])
    divisors = channel_scales(statistics, list(floats.values()), 0.5)
    for name in names:
        # Half of a code, of 127 in a row, is what rounding may cost; clipping a little more.
        smoothed = floats[name] * divisors
        off = np.abs(written(made, name) - smoothed).max(axis=1)
        assert (off < 0.05 * np.abs(smoothed).max(axis=1)).all()
        assert sqnr_db(written(made, name), smoothed.astype(np.float32)) > 35


# Segments


@pytest.mark.parametrize("scheme", ["int8", "int4-weight"])
def test_pieces_make_no_difference(denoiser: FloatDenoiser, scheme: str, tmp_path: Path) -> None:
    def decisions(most: int, folder: Path) -> tuple[int, list[GroupDecision]]:
        model, found = denoiser.whole(), list[GroupDecision]()
        folder.mkdir()
        choice = choose(model, NAME, KEEP)
        taps = [group.name for group in choice.groups]
        chain = Chain(model, denoiser.weights, folder, FiniteCheck(NAME), taps=taps, most_weight_bytes=most)
        with QuantizedGraphs(denoiser.files, choice, scheme, folder) as graphs:
            settings = Settings(scheme, "mse", "search")
            decide(chain, choice.groups, samples(), settings, graphs.weight_of, folder, found.append)
        return len(chain.pieces), found

    (one, whole), (several, cut) = decisions(2**30, tmp_path / "one"), decisions(4 * WIDTH * WIDTH, tmp_path / "some")
    assert one == 1 and several > 10
    assert [entry.group.name for entry in cut] == [entry.group.name for entry in whole]
    for ours, theirs in zip(cut, whole, strict=True):
        assert (ours.alpha, ours.activation_scale) == (theirs.alpha, theirs.activation_scale)
        assert (ours.sqnr_db, ours.rows_per_sample) == (theirs.sqnr_db, theirs.rows_per_sample)
        for name, codes in theirs.codes.items():
            np.testing.assert_array_equal(ours.codes[name].values, codes.values)
            np.testing.assert_array_equal(ours.codes[name].scales, codes.scales)


def owner(array: Array) -> weakref.ref[Array]:
    """What holds the memory that an array is a view of."""
    return weakref.ref(array if array.base is None else array.base)


def test_memory_holds_one_linear(denoiser: FloatDenoiser, tmp_path: Path) -> None:
    """Neither codes nor rows of inputs are kept, which of all blocks are half the model; and of the weights that share
    an input, as those of every block share the text, one is read after the other."""
    model, weights, kept = denoiser.whole(), list[weakref.ref[Array]](), list[weakref.ref[Array]]()
    choice = choose(model, NAME, KEEP)
    chain = Chain(model, denoiser.weights, tmp_path, FiniteCheck(NAME), taps=[group.name for group in choice.groups])
    with QuantizedGraphs(denoiser.files, choice, "int8", tmp_path) as graphs:

        def weight_of(name: str) -> Array:
            assert sum(weight() is not None for weight in weights) <= 1, "the one before"
            weight = graphs.weight_of(name)
            weights.append(owner(weight))
            return weight

        def add(decided: GroupDecision) -> None:
            graphs.add(decided)
            arrays = [decided.inputs, *decided.outputs.values(), *(codes.values for codes in decided.codes.values())]
            kept.extend(owner(array) for array in arrays if array.size)

        decide(chain, choice.groups, samples(), Settings("int8", "mse", "search"), weight_of, tmp_path, add)
        gc.collect()
        assert weights and kept
        assert [array for array in kept if array() is not None] == []


# Samples that show nothing


def with_input(name: str, values: Callable[[Array], Array], where: Iterable[int] = range(SAMPLES)) -> list[Sample]:
    """Samples of which some have one input changed."""

    def changed(number: int) -> dict[str, Array]:
        given = sample(number)
        return {**given, name: values(given[name])} if number in where else given

    return [lambda number=number: changed(number) for number in range(SAMPLES)]


@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_is_too_few(quantise: Quantise, count: int) -> None:
    with pytest.raises(UserError, match="cannot show how far activations reach") as caught:
        quantise("int8", given=samples(range(count)))
    assert caught.value.hint == "raise quantize.calibrate.clips or quantize.calibrate.timestep_bins"


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weight", "int4-weight"])
@pytest.mark.parametrize(("value", "what"), [(0.0, "0"), (-1.5, "of one magnitude")])
def test_an_input_that_never_varies(quantise: Quantise, scheme: str, value: float, what: str) -> None:
    given = with_input("text", lambda text: np.full_like(text, value))
    with pytest.raises(UserError) as caught:
        quantise(scheme, given=given)
    assert caught.value.message == (
        f"the input of blocks.0.attn2.to_k was {what} in all samples: there is nothing to calibrate on"
    )
    assert caught.value.hint == (
        "calibrate on more samples, or keep it in float: quantize.keep.patterns: [blocks.0.attn2.to_k]"
    )


def test_what_never_varies_may_stay_in_float(quantise: Quantise) -> None:
    given = with_input("text", np.zeros_like)
    keep = (*KEEP, "*.attn2.*")
    assert quantise("int8", keep=keep, given=given).table.quantized


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_not_finite(quantise: Quantise, value: float) -> None:
    given = with_input("text", lambda text: np.where(np.arange(text.shape[-1]) == 3, value, text), where=[2])
    with pytest.raises(UserError) as caught:
        quantise("int8", given=given)
    assert caught.value.message == "the input of blocks.0.attn2.to_k is not finite in sample 3 of 6"
    assert caught.value.hint == "the float model itself overflows there: quantisation cannot mend that"


def test_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    spoilt = make(tmp_path, lambda name, values: values * np.nan if name == "proj_in.weight" else values)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CheckpointError, match=r"denoiser_high: tensor proj_in\.weight holds 512 values"):
        quantised(spoilt, out)
