"""A denoiser split over ranks by its tokens computes what it computes whole, and is refused where it cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.checkpoints import write_checkpoint
from wanc.compiler.check.ranked import Ranked
from wanc.compiler.check.steps import Workshop
from wanc.compiler.check.trials import SourceRefuses
from wanc.compiler.engines.lowered_graph import SizeRange
from wanc.compiler.engines.segment import compile_segment
from wanc.compiler.engines.tensorrt.compiler import TensorRtCompiler
from wanc.compiler.engines.tensorrt.on_target import BuildSettings
from wanc.compiler.engines.tensorrt.passes import passes_of
from wanc.compiler.engines.tensorrt.precision import Precision
from wanc.compiler.export.wan import Traced
from wanc.compiler.graphs.attentions import AttentionScales, attentions, round_attentions
from wanc.compiler.graphs.by_blocks import cut_by_blocks
from wanc.compiler.graphs.collectives import COLLECTIVE
from wanc.compiler.graphs.ulysses import split_tokens
from wanc.compiler.host import ranks as host_ranks
from wanc.compiler.host.lowered import HostGraph
from wanc.compiler.host.ranks import run_ranks
from wanc.compiler.passes.apply import apply_passes
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import Segment
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import RecipeError
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.runtime.engine_file import RANK

from .fusing import DEFAULT, export
from .narrowed import narrowed, quantised, stored
from .passes.builder import noise, parse

Array = np.ndarray[Any, Any]
LAYERS, HEADS, HEAD = 2, 12, 32
BLOCKS = tuple(f"blocks.{layer}" for layer in range(LAYERS))
FRAMES, ROWS, COLUMNS = 3, 4, 6
TOKENS = FRAMES * ROWS * COLUMNS
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Step:
    """A fused step, cut by binding time, and what it is given."""

    model: ir.Model
    files: ComponentFiles
    feeds: Mapping[str, Array]

    @property
    def weights(self) -> Files:
        return self.files.weights

    def split(self, model: ir.Model, ranks: int) -> ir.Model:
        model = model.clone()
        split_tokens(model, ranks, [{"tokens": TOKENS}])
        return model


@pytest.fixture(scope="module")
def step(traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Step:
    """Of twelve heads and distinct random weights."""
    folder = tmp_path_factory.mktemp("step")
    sizes = {"layers": LAYERS, "heads": HEADS, "head_dim": HEAD, "ffn": 512, "experts": 1}
    checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", seed=1, **sizes))
    (folder / "exported").mkdir()
    (folder / "fused").mkdir()
    fused = export("denoiser_high", checkpoint, traced, folder / "exported").fused(DEFAULT, folder / "fused")
    model = fused.graph("step")
    given = {"frames": FRAMES, "rows": ROWS, "columns": COLUMNS, "tokens": TOKENS}
    feeds = noise(model, given, 0)
    angles = feeds["rope.freqs_cos.0"]
    feeds |= {"rope.freqs_cos.0": np.cos(angles), "rope.freqs_sin.0": np.sin(angles)}
    files = replace(fused.read, component=replace(fused.read.component, blocks=BLOCKS))
    return Step(model, files, feeds)


def of_ranks(feeds: Mapping[str, Array], ranks: int) -> list[dict[str, Array]]:
    return [{**feeds, RANK: np.array([rank])} for rank in range(ranks)]


def collectives(model: ir.Model) -> Counter[str]:
    nodes = (node for node in model.graph if node.op_type == COLLECTIVE)
    return Counter(str(node.attributes["collective_operation"].value) for node in nodes)


FORMS = (
    "float", "bf16", "int8", "int8 in bf16", "fp8 in bf16", "fp8 with attention in bf16",
    pytest.param("fp8 with attention", marks=pytest.mark.slow),
)  # fmt: skip
STEPS = AttentionScales(0.01, 0.012, 0.008)


def formed(step: Step, form: str, folder: Path) -> ir.Model:
    kind = form.split(" ")[0]
    model = step.model if kind in ("float", "bf16") else quantised(step.model, step.weights, folder, step.feeds, kind)
    if "attention" in form:
        round_attentions(model, {attention.name: STEPS for attention in attentions(model)})
    return narrowed(model) if "bf16" in form else model


@pytest.mark.parametrize("form", FORMS)
def test_ranks_compute_what_one_does(step: Step, form: str, tmp_path: Path) -> None:
    """Rounded to codes as well: what a rank computes of a token has its sums in the same order."""
    model = formed(step, form, tmp_path)
    whole = HostGraph(stored(model, step.weights, tmp_path, "whole"), tmp_path).run(step.feeds)["velocity"]
    for ranks in (2, 4):
        split = stored(step.split(model, ranks), step.weights, tmp_path, f"split-{ranks}")
        for outputs in run_ranks(split, tmp_path, of_ranks(step.feeds, ranks)):
            assert np.abs(outputs["velocity"] - whole).max() <= TOLERANCE * np.abs(whole).max()


@pytest.mark.parametrize("form", ["float", pytest.param("int8", marks=pytest.mark.slow)])
def test_ranks_compute_what_one_does_as_lowered_for_gpus(step: Step, form: str, tmp_path: Path) -> None:
    """Of queries as well, which are scaled before they are rounded to 16 bits for the exchange, and once."""
    model, found = formed(step, form, tmp_path), dict[int, Array]()
    for ranks in (1, 2):
        lowered = step.split(model, ranks) if ranks > 1 else model.clone()
        apply_passes(lowered, passes_of(Precision("bf16")), where="the test")
        written = stored(lowered, step.weights, tmp_path, f"lowered-{ranks}")
        executed = run_ranks(written, tmp_path, of_ranks(step.feeds, ranks)) if ranks > 1 else []
        (outputs, *_) = executed or [HostGraph(written, tmp_path).run(step.feeds)]
        found[ranks] = outputs["velocity"]
    assert np.abs(found[2] - found[1]).max() <= TOLERANCE * np.abs(found[1]).max()


def test_a_rank_that_took_anothers_tokens_would_be_seen(step: Step, tmp_path: Path) -> None:
    model = stored(step.model, step.weights, tmp_path, "whole")
    whole = HostGraph(model, tmp_path).run(step.feeds)["velocity"]
    split = stored(step.split(step.model, 2), step.weights, tmp_path, "split")
    both = of_ranks(step.feeds, 2)
    for outputs in run_ranks(split, tmp_path, both[::-1]):
        assert np.abs(outputs["velocity"] - whole).max() > 0.1 * np.abs(whole).max()


def ranked(step: Step, ranks: int, folder: Path) -> Ranked:
    """As the check executes a step that is built for so many ranks."""
    passes, workshop = passes_of(Precision("bf16")), Workshop(folder, step.weights, elsewhere=True)
    return Ranked.of(ranks, step.files, lambda _: passes, workshop, ())


def test_the_check_executes_all_ranks(step: Step, tmp_path: Path) -> None:
    model = step.model.clone()
    apply_passes(model, passes_of(Precision("bf16")), where="the test")
    whole = HostGraph(stored(model, step.weights, tmp_path, "whole"), tmp_path).run(step.feeds)["velocity"]
    checked = ranked(step, 4, tmp_path / "ranks")
    assert checked.takes({"frames": FRAMES, "rows": ROWS, "columns": COLUMNS})
    assert not checked.takes({"frames": 3, "rows": 3, "columns": 5})
    outputs = checked.parts.parts["step"].run(step.feeds)
    np.testing.assert_array_equal(outputs["velocity"], whole)


def test_ranks_that_do_not_agree_are_no_build(step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: the last of them gathers the others' tokens in another order."""
    received = host_ranks._received

    def turned(operation: str, brought: list[Array], rank: int) -> Array:
        return received(operation, brought[::-1] if operation == "all_gather" and rank else brought, rank)

    monkeypatch.setattr(host_ranks, "_received", turned)
    with pytest.raises(SourceRefuses, match="its ranks give different results"):
        ranked(step, 2, tmp_path).parts.parts["step"].run(step.feeds)


def test_segments_of_ranks_are_built_for_a_rank_s_tokens(step: Step, tmp_path: Path) -> None:
    """A later segment is given its part of the tokens, and its engine takes so many of them."""
    devices, name = ("gpu0", "gpu1"), step.files.name
    shapes = [{"latents": tuple(SizeRange(n, n, n) for n in (1, 16, frames, 8, 12))} for frames in (3, 5)]
    for index in range(LAYERS):
        segment = Segment(name, index, index, index + 1, devices[0], devices)
        compiler, out = TensorRtCompiler("bf16", ("norm",), weight_streaming=False), tmp_path / str(index)
        compiled = compile_segment(compiler, step.files, segment, "sm80", out, FiniteCheck(name), shapes)
        (entry,) = [file for file in compiled.files if file.graph == "step"]
        assert entry.ranks == devices
    profiles = BuildSettings.read(out / entry.file, "here").profiles
    (stream,) = [value for value in profiles[0] if value.startswith("add")]
    own = [profile[stream][1] for profile in profiles]
    assert own == [(1, frames * 4 * 6 // 2, HEADS * HEAD) for frames in (3, 5)]


@pytest.mark.parametrize("ranks", [2, 4, 6])
def test_what_is_exchanged(step: Step, ranks: int, tmp_path: Path) -> None:
    """Four times in each block, and the velocity once at the end; all but the attentions is on a rank's tokens."""
    split = step.split(step.model, ranks)
    assert collectives(split) == {"all_to_all": 4 * LAYERS, "all_gather": 1}
    heads = [node.attributes["q_num_heads"].value for node in split.graph if node.op_type == "Attention"]
    assert heads == [HEADS // ranks, HEADS] * LAYERS
    assert [str(value.name) for value in split.graph.inputs] == [*(str(v.name) for v in step.model.graph.inputs), RANK]
    assert len({node.name for node in split.graph if node.op_type == COLLECTIVE}) == 4 * LAYERS + 1
    save(split, tmp_path / "split.onnx")
    stored(split, step.weights, tmp_path, "split")


def test_onnx_accepts_it(step: Step, tmp_path: Path) -> None:
    """Its checker with shape inference, on sizes that the splitter has noted."""
    split = stored(step.split(step.model, 2), step.weights, tmp_path, "split")
    save(split, tmp_path / "split.onnx")
    onnx.checker.check_model(str(tmp_path / "split.onnx"), full_check=True)


def test_a_split_step_is_cut_by_blocks(step: Step, tmp_path: Path) -> None:
    """A rank's own part of the residual stream is what crosses, and its part of the tables of rotations."""
    first, second = cut_by_blocks(step.split(step.model, 2), BLOCKS, [1])
    assert first is not None and second is not None
    crossing = [name for name in second.inputs if name in first.outputs]
    assert sorted(name for name in crossing if "rope" in name) == ["rope.freqs_cos.0.part", "rope.freqs_sin.0.part"]
    streams = [value for value in first.model.graph.outputs if value.shape is not None and len(value.shape) == 3]
    assert len(streams) == 3
    assert RANK in first.inputs and RANK not in second.inputs
    assert collectives(first.model) == {"all_to_all": 4}
    assert collectives(second.model) == {"all_to_all": 4, "all_gather": 1}


# Refusals


@pytest.mark.parametrize(
    ("ranks", "tokens", "reason"),
    [
        (5, 40, r"the attention \S+ has 12 heads, which cannot be split over 5 ranks"),
        (12, 72, "12 heads over 12 ranks leave one to each, and attention of one head is never a fused kernel"),
        (4, 70, "a shape has 70 tokens, which cannot be split over 4 ranks"),
    ],
)
def test_what_cannot_be_split(step: Step, ranks: int, tokens: int, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        split_tokens(step.model.clone(), ranks, [{"tokens": TOKENS}, {"tokens": tokens}])


HEADS_OF = "q_num_heads = 4, kv_num_heads = 4"


def denoiser(body: str, result: str = "float[1, n, 16] y", table: str = "float[1, n, 16] p") -> ir.Model:
    return parse(f"g (float[1, n, 16] x, {table}) => ({result}) {{ {body} }}")


def test_what_nothing_attends_to_is_not_split() -> None:
    with pytest.raises(RecipeError, match="g cannot be split by tokens: none of them attend to each other"):
        split_tokens(denoiser(f"a = Tanh (x)  y = Attention <{HEADS_OF}> (a, p, p)"), 2, [])


def test_sizes_that_the_graph_says_are_looked_at() -> None:
    model = denoiser(f"y = Attention <{HEADS_OF}> (x, x, x)".replace("n", "n"))
    for value in model.graph.inputs:
        value.shape = ir.Shape([1, 9, 16])
    with pytest.raises(RecipeError, match="a shape has 9 tokens"):
        split_tokens(model, 2, [])


@pytest.mark.parametrize(
    "body",
    [
        f"a = Add (x, p)  b = Attention <{HEADS_OF}> (a, a, a)  y = Add (b, x)",
        f"a = Attention <{HEADS_OF}> (x, x, x)  b = Tanh (a)  y = Softmax <axis = 1> (b)",
        f"a = Attention <{HEADS_OF}> (x, x, x)  b = Attention <{HEADS_OF}> (p, a, a)  y = Add (b, a)",
    ],
    ids=["positions", "over the tokens", "a memory"],
)
def test_what_has_tokens_is_split_and_what_mixes_them_gets_all(body: str, tmp_path: Path) -> None:
    """Tables of positions; a softmax over the tokens; and an attention of another sequence to these."""
    model = denoiser(body)
    feeds = noise(model, {"n": 8}, 0)
    expected = HostGraph(model, tmp_path).run(feeds)["y"]
    split_tokens(model, 2, [{"n": 8}])
    for outputs in run_ranks(model, tmp_path, of_ranks(feeds, 2)):
        np.testing.assert_allclose(outputs["y"], expected, rtol=0, atol=1e-5)
