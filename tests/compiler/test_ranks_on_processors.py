"""A denoiser's step whose tokens several processors split computes what one of them computes, piece by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.checkpoints import write_checkpoint
from wanc.compiler.bundle.examine import Examined, examine
from wanc.compiler.bundle.golden import Golden
from wanc.compiler.engines.compiled import Compiled, numbered
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.segment import compile_segment
from wanc.compiler.export.wan import Traced
from wanc.compiler.graphs.collectives import COLLECTIVE
from wanc.compiler.graphs.quantized_linears import quantized_linears
from wanc.compiler.graphs.values import size
from wanc.compiler.placement import Range
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import load, save
from wanc.compiler.program.program import Program, ProgramComponent, Segment
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import CheckpointError, RecipeError
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.runtime.engine_file import RANK, EngineFile
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.interface import InputError, Interface
from wanc.runtime.pool import Empty
from wanc.runtime.segments import Segments
from wanc.runtime.value import Value
from wanc.runtime.workers.exchange import exchanged

from .fusing import DEFAULT, OneComponent, export, files_of
from .narrowed import quantised
from .passes.builder import noise

Array = np.ndarray[Any, Any]
NAME, STEP = "denoiser_high", "step"
LAYERS, HEADS, HEAD = 4, 12, 8
BLOCKS = tuple(f"blocks.{layer}" for layer in range(LAYERS))
SIZES = {"frames": 3, "rows": 4, "columns": 6, "tokens": 72}
TOLERANCE = 1e-5
ONNX_RUNTIME = OnnxRuntimeCompiler()
CPUS = tuple(f"cpu.{number}" for number in range(4))
PLACEMENTS = {
    "two ranks": [Range.on(NAME, 0, LAYERS, CPUS[:2])],
    "four ranks": [Range.on(NAME, 0, LAYERS, CPUS)],
    "a pipeline of two stages of two ranks": [
        Range.on(NAME, 0, 1, CPUS[:2]),
        Range.on(NAME, 1, LAYERS, CPUS[2:]),
    ],
}
"""By what they are called: the blocks of each segment, and its ranks."""
TRANSPORTS = ("threads", "processes")
"""How workers are reached; processes share memory."""


@dataclass(frozen=True)
class Step:
    """A step of twelve heads and distinct random weights, as the program has it, and what it is given."""

    files: ComponentFiles
    feeds: Mapping[str, Array]

    def compiled(self, ranges: Sequence[Range], folder: Path, compiler: Compiler = ONNX_RUNTIME) -> Segments:
        """The step on these devices."""
        made: list[Compiled] = []
        for index, one in enumerate(ranges):
            segment = Segment(NAME, index, one.first, one.stop, one.device, one.ranks)
            finite, out = FiniteCheck(NAME), folder / str(index)
            made.append(compile_segment(compiler, self.files, segment, "cpu", out, finite))
        files = [replace(file, file=f"{i}/{file.file}") for i, entry in enumerate(made) for file in entry.files]
        graph = made[0].graphs[STEP]
        return Segments.of(Interface(graph.inputs, graph.outputs), numbered(files), "the test")

    def examined(self, ranks: int, folder: Path) -> tuple[Examined, Array]:
        """What a build makes of the step for so many ranks, and the velocity in its golden record."""
        one, golden, compiler = Range.on(NAME, 0, LAYERS, CPUS[:ranks]), Golden(), ONNX_RUNTIME
        segment = Segment(NAME, 0, one.first, one.stop, one.device, one.ranks)
        made = compile_segment(compiler, self.files, segment, "cpu", folder, FiniteCheck(NAME))
        found = examine(compiler, self.files, [made], folder, {}, golden)
        return found, golden.expected[f"{NAME}/{STEP}/velocity"]

    def run(self, segments: Segments, folder: Path, transport: str | None = None) -> Array:
        """The velocity that they give."""
        executor = Executor(PlainFolder(folder), {(NAME, STEP): segments}, threads=1, transport=transport)
        return executor.run(NAME, STEP, self.feeds)["velocity"].numpy()


def program_of(fused: OneComponent, change: Callable[[ir.Model], ir.Model], folder: Path) -> ComponentFiles:
    """A program with the step alone, cut off what is known before it."""
    entry, component = fused.lowerable[STEP], fused.read.component
    (folder / NAME).mkdir(parents=True)
    save(change(entry.model), folder / NAME / "step.onnx")
    graph = replace(entry.graph, file=f"{NAME}/step.onnx")
    Program("graph", None, {NAME: ProgramComponent({STEP: graph}, component.weights, BLOCKS)}, None).write(folder)
    return OneComponent(NAME, files_of(folder), fused.source).read


@pytest.fixture(scope="module")
def fused(traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> OneComponent:
    folder = tmp_path_factory.mktemp("step")
    sizes: dict[str, Any] = {"layers": LAYERS, "heads": HEADS, "head_dim": HEAD, "ffn": 128, "experts": 1}
    checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", seed=1, **sizes))
    for name in ("exported", "fused"):
        (folder / name).mkdir()
    return export(NAME, checkpoint, traced, folder / "exported").fused(DEFAULT, folder / "fused")


@pytest.fixture(scope="module")
def plain(fused: OneComponent, tmp_path_factory: pytest.TempPathFactory) -> Step:
    """In float32."""
    return Step(program_of(fused, lambda model: model, tmp_path_factory.mktemp("plain")), feeds_of(fused))


@pytest.fixture(scope="module", params=["float", "int8"])
def step(
    request: pytest.FixtureRequest, plain: Step, fused: OneComponent, tmp_path_factory: pytest.TempPathFactory
) -> Step:
    """The same, and with all Linears but the last in codes."""
    if request.param == "float":
        return plain
    folder = tmp_path_factory.mktemp("int8")
    change = partial(quantised, weights=fused.read.weights, folder=folder, feeds=plain.feeds)
    return replace(plain, files=program_of(fused, change, folder / "program"))


def feeds_of(fused: OneComponent) -> dict[str, Array]:
    """Noise, and rotations by angles of noise."""
    feeds = noise(fused.graph(STEP), SIZES, 0)
    angles = feeds["rope.freqs_cos.0"]
    return {**feeds, "rope.freqs_cos.0": np.cos(angles), "rope.freqs_sin.0": np.sin(angles)}


@pytest.fixture(scope="module")
def expected(step: Step, tmp_path_factory: pytest.TempPathFactory) -> Array:
    """What one device gives, which executes the whole step."""
    folder = tmp_path_factory.mktemp("one")
    segments = step.compiled([Range.on(NAME, 0, LAYERS, CPUS[:1])], folder)
    assert len(segments.files) == 1
    return step.run(segments, folder)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_ranks_give_what_one_device_gives(
    placement: str, transport: str, step: Step, expected: Array, tmp_path: Path
) -> None:
    ranges = PLACEMENTS[placement]
    segments = step.compiled(ranges, tmp_path)
    assert len(segments.files) == 2 * LAYERS + len(ranges) + 1, "two cuts for each attention, and one at the end"
    velocity = step.run(segments, tmp_path, transport)
    assert np.abs(velocity - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_ranks_give_what_one_device_gives_in_openvino(plain: Step, tmp_path: Path) -> None:
    """In float32: of codes it computes sums in another order for fewer tokens, and rounds some to the next one."""
    compiler, found = OpenVinoCompiler("fp32", ()), list[Array]()
    for name, ranges in (("one", [Range.on(NAME, 0, LAYERS, CPUS[:1])]), ("ranks", PLACEMENTS["two ranks"])):
        found.append(plain.run(plain.compiled(ranges, tmp_path / name, compiler), tmp_path / name))
    assert np.abs(found[1] - found[0]).max() <= TOLERANCE * np.abs(found[0]).max()


def test_blocks_that_went_to_the_wrong_rank_would_be_seen(
    plain: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: ranks exchange as if they stood the other way round."""

    def turned(file: EngineFile, ranks: Sequence[dict[str, Value]], empty: Empty) -> None:
        exchanged(file, ranks[::-1], empty)

    monkeypatch.setattr("wanc.runtime.workers.micro_batches.exchanged", turned)
    segments = plain.compiled(PLACEMENTS["two ranks"], tmp_path)
    wrong = plain.run(segments, tmp_path)
    monkeypatch.undo()
    right = plain.run(segments, tmp_path)
    assert np.abs(wrong - right).max() > 0.1 * np.abs(right).max()


def test_pieces_and_ranks_share_one_file_of_weights(plain: Step, tmp_path: Path) -> None:
    """Each weight is written once, and one piece has it: nothing is mapped twice but small constants."""
    segments = plain.compiled(PLACEMENTS["two ranks"], tmp_path)
    (weights,) = tmp_path.rglob("*.bin")
    found: Counter[int] = Counter()
    for file in segments.files:
        model = load(tmp_path / file.file)
        assert all(node.op_type != COLLECTIVE for node in model.graph)
        tensors = [value.const_value for value in model.graph.initializers.values()]
        for tensor in [tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor)]:
            assert tensor.location == weights.name
            found[tensor.offset or 0] += 1
    assert found and set(found.values()) == {1}


def test_each_piece_says_who_executes_it_and_what_is_exchanged_before(plain: Step, tmp_path: Path) -> None:
    segments = plain.compiled(PLACEMENTS["a pipeline of two stages of two ranks"], tmp_path)
    attention = [["all_to_all"] * 3, ["all_to_all"]]
    first, others = [[], *attention], [[], *attention * (LAYERS - 1), ["all_gather"]]
    told = [[exchange.operation for exchange in file.exchanges] for file in segments.files]
    assert told == [*first, *others]
    assert [file.ranks for file in segments.files] == [CPUS[:2]] * len(first) + [CPUS[2:]] * len(others)
    assert [RANK in file.inputs for file in segments.files] == [True] + [False] * (len(told) - 1)


def test_a_build_executes_all_ranks_for_its_golden_record(step: Step, tmp_path: Path) -> None:
    """The kernels are told as each rank has them; what they multiply together is what one device does."""
    one, alone = step.examined(1, tmp_path / "one")
    ranked, together = step.examined(4, tmp_path / "ranked")
    assert np.abs(together - alone).max() <= TOLERANCE * np.abs(alone).max()
    assert ranked.here == {STEP}
    ranked.check_fused(())
    ranked.check_numbers()
    kernels, expected = ranked.kernels[STEP], one.kernels[STEP]
    assert kernels.fused == expected.fused and kernels.fused["Attention"] == 2 * LAYERS
    assert kernels.products == expected.products and kernels.precision == expected.precision
    linears, rows = quantized_linears(one.graphs[STEP].model), np.random.default_rng(0)
    assert bool(linears) == (kernels.precision == "integer")
    probers = [found.built[STEP].prober() for found in (one, ranked)]
    for linear in linears:
        inputs = rows.standard_normal((2, size(linear.codes, 1) or 0), np.float32)
        alone, in_a_piece = (prober.run(linear.name, inputs) for prober in probers)
        assert alone is not None and in_a_piece is not None
        np.testing.assert_array_equal(alone, in_a_piece)


def test_ranks_that_do_not_agree_are_no_build(plain: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: the last of them gathers the others' tokens in another order."""

    def turned(file: EngineFile, ranks: Sequence[dict[str, Value]], empty: Empty) -> None:
        exchanged(file, ranks, empty)
        for exchange in file.exchanges:
            if exchange.operation == "all_gather":
                ranks[-1][exchange.taken] = Value(ranks[-1][exchange.taken].numpy()[::-1])

    monkeypatch.setattr("wanc.compiler.bundle.built_graph.exchanged", turned)
    with pytest.raises(CheckpointError, match="not all of its ranks give the same velocity"):
        plain.examined(2, tmp_path)


def test_tokens_that_cannot_be_split_evenly_are_refused_before_anything_runs(plain: Step, tmp_path: Path) -> None:
    segments = plain.compiled(PLACEMENTS["two ranks"], tmp_path)
    feeds = noise(plain.files.model(STEP), {"frames": 3, "rows": 5, "columns": 5, "tokens": 75}, 0)
    for path in tmp_path.rglob("*.onnx"):
        path.unlink()  # nobody is to ask for them
    executor = Executor(PlainFolder(tmp_path), {(NAME, STEP): segments}, threads=1)
    with pytest.raises(InputError, match=r"^2 devices cannot have equal parts of 75 tokens"):
        executor.run(NAME, STEP, feeds)


def test_a_build_refuses_ranks_that_cannot_test_themselves(plain: Step, tmp_path: Path) -> None:
    """The record's video has 60 tokens."""
    uneven = replace(plain.files.component.graphs[STEP], example={"frames": 1, "rows": 3, "columns": 5, "tokens": 15})
    files = replace(plain.files, component=replace(plain.files.component, graphs={STEP: uneven}))
    with pytest.raises(RecipeError, match="the self-test has tokens that cannot be split over 2 ranks"):
        replace(plain, files=files).compiled(PLACEMENTS["two ranks"], tmp_path)


def test_heads_that_ranks_cannot_share_are_refused(plain: Step, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has 12 heads, which cannot be split over 5 ranks"):
        plain.compiled([Range.on(NAME, 0, LAYERS, [f"cpu.{number}" for number in range(5)])], tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))
