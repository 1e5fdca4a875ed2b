"""tiny-wan's decoder, its convolutions quantised on clips that were denoised to their end: close to what it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.check.pieces import by_pieces
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.graphs.convolutions import convolutions
from wanc.compiler.graphs.quantized_linears import quantized_linears
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import ENGINE_REPORT, FILE
from wanc.compiler.program.quant_table import FLOAT, QuantTable, table_file
from wanc.compiler.quantize.calibrate import LATENTS, PROMPT, TIMESTEPS
from wanc.compiler.quantize.experts import DecoderStages, QuantizeStages
from wanc.compiler.quantize.watched_decoder import WatchedDecoder
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.errors import UserError
from wanc.recipe.quantize import DECODER_ENDS
from wanc.runtime import safetensors
from wanc.runtime.decode import FIRST, STEADY, decoded
from wanc.runtime.model import DECODER
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.value import Given, Value, as_array, as_values

from .planted_faults import (
    Made,
    build,
    edited,
    leave_the_input,
    lowering_with,
    refusal,
    rescale,
    take_the_float_weight,
    with_components,
    with_scales_off,
)
from .tiny_stages import StageInputs, fused_trees, run_stage

Array = np.ndarray[Any, Any]
CLIPS, STEPS, SEED = 3, 6, 7
SETTINGS = (
    "engine.kind=openvino",
    "quantize.scheme=none",
    "quantize.vae_decoder=int8",
    f"quantize.calibrate.clips={CLIPS}",
    f"quantize.calibrate.seed={SEED}",
    "quantize.calibrate.shapes=[{name: 64p, height: 64, width: 64, frames: 17}]",
    f"sampling.steps={STEPS}",
)
LEAST_PSNR_DB = 33.0
"""Of a clip that calibration has not seen, against the float decoder: both are on a scale of 0 to 255. A scale or an
axis at the wrong place leaves less than 20."""
VICTIM = "decoder.up_blocks.1.resnets.0.conv2"
ONLY_STEADY = "decoder.up_blocks.0.upsamplers.0.time_conv"


@dataclass(frozen=True)
class Decoder(StageInputs):
    """A decoder's program among a stage's inputs."""

    component: ClassVar[str] = DECODER

    def frames(self, latents: Array, folder: Path) -> Array:
        """What the host makes of latents, float32 [1, 3, frames, height, width]."""
        model, graphs = self.program.model, self.files.component.graphs
        assert model is not None
        run = ByHost(self.files, folder)
        return np.concatenate(
            [frames.copy() for frames in decoded([latents], model.latent_mean, model.latent_std, run, graphs)], axis=2
        )


@dataclass(frozen=True)
class ByHost:
    """In place of an executor."""

    files: ComponentFiles
    folder: Path
    empty = staticmethod(np.empty)

    def run(self, component: str, graph: str, inputs: Mapping[str, Given]) -> dict[str, Value]:
        assert component == DECODER
        given = {name: as_array(value) for name, value in inputs.items()}
        return as_values(by_pieces(self.files, graph, self.folder, (), given))


@dataclass(frozen=True)
class Fused(Decoder):
    """As it is before it is quantised, and its stages."""

    stages: QuantizeStages

    @property
    def own(self) -> DecoderStages:
        assert self.stages.decoder is not None
        return self.stages.decoder

    def run(self, stage: Stage, out: Path, **more: Files) -> Files:
        return run_stage(stage, {**self.inputs, **more}, out)

    def quantised(self, samples: Files, out: Path, **changes: Any) -> Decoder:
        return Decoder(self.after(replace(self.own.quantize, **changes), out, samples=samples))


@pytest.fixture(scope="module")
def fused(tiny_bundle: Path) -> Fused:
    """From the store beside `tiny_bundle`."""
    stages, trees = fused_trees(tiny_bundle, *SETTINGS)
    return Fused({name: tree.locate() for name, tree in trees.items()}, stages)


@pytest.fixture(scope="module")
def samples(fused: Fused, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("samples")
    texts = fused.run(fused.stages.texts, folder / "texts" / "out")
    return fused.run(fused.own.calibrate, folder / "clips" / "out", texts=texts)


@pytest.fixture(scope="module")
def quantised(fused: Fused, samples: Files, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return fused.quantised(samples, tmp_path_factory.mktemp("decoder") / "out")


# What it is calibrated on


def test_samples_are_what_the_bundle_denoises(fused: Fused, samples: Files, tiny_bundle: Path) -> None:
    pipeline = Pipeline.open(tiny_bundle, threads=1)
    for number, (_, path) in enumerate(sorted(samples.items())):
        clip, prompt = SafetensorsFile(path), fused.stages.texts.prompts[number]
        made = pipeline.generate(prompt, seed=SEED + number, steps=STEPS)
        assert clip[PROMPT].tolist() == [number] and clip[TIMESTEPS].tolist() == [0.0]
        # A component in one graph sums in another order than its parts.
        np.testing.assert_allclose(clip[LATENTS][0], made.latents, rtol=1e-3, atol=1e-3)


# What it computes


def psnr(one: Array, other: Array) -> float:
    """Of pictures on a scale of -1 to 1, what lies beyond cut off."""
    error = float(np.square(np.clip(one, -1, 1) - np.clip(other, -1, 1), dtype=np.float64).mean())
    return 10 * float(np.log10(4 / error))


def test_other_clips_are_decoded_nearly_as_before(
    fused: Fused, quantised: Decoder, tiny_bundle: Path, tmp_path: Path
) -> None:
    latents = Pipeline.open(tiny_bundle, threads=1).generate("A yellow circle moves up.", seed=99, steps=STEPS).latents
    expected, found = (made.frames(latents, tmp_path) for made in (fused, quantised))
    assert LEAST_PSNR_DB < psnr(found, expected) < LEAST_PSNR_DB + 20
    # The first frame has a graph of its own.
    assert psnr(found[:, :, :1], expected[:, :, :1]) > LEAST_PSNR_DB - 3


# The table, and what goes with it


def test_the_table_lists_every_convolution_of_both_graphs(fused: Fused, quantised: Decoder) -> None:
    names = {graph: [one.name for one in convolutions(fused.files.model(graph))] for graph in (FIRST, STEADY)}
    table = quantised.table
    assert table.linears.keys() == {*names[FIRST], *names[STEADY]} and ONLY_STEADY not in names[FIRST]
    kept = {name: entry.reason for name, entry in table.linears.items() if entry.scheme == FLOAT}
    assert kept == {name: f"keep pattern {name}" for name in DECODER_ENDS}
    assert sum(entry.flops_share for entry in table.linears.values()) == pytest.approx(1)
    assert table.samples == CLIPS
    for entry in table.quantized.values():
        assert entry.sqnr_db is not None and 25 < entry.sqnr_db < 70
        assert entry.activation_scale is not None and entry.alpha is None and entry.effect is None


def test_both_graphs_have_the_same_codes_and_steps(quantised: Decoder) -> None:
    found = {graph: quantized_linears(quantised.files.model(graph)) for graph in (FIRST, STEADY)}
    assert {one.name for one in found[STEADY]} == quantised.table.quantized.keys()
    assert all(one.is_integer and one.is_convolution for each in found.values() for one in each)
    steps: dict[str, set[float]] = {}
    for one in (one for each in found.values() for one in each):
        users = [use.node for use in one.input.uses() if use.node.op_type == "QuantizeLinear"]
        assert users
        scale = users[0].inputs[1]
        assert scale is not None and scale.const_value is not None
        steps.setdefault(one.name, set()).add(float(scale.const_value.numpy()))
    assert all(len(each) == 1 for each in steps.values())
    weights = quantised.files.component.weights
    for name in quantised.table.quantized:
        assert f"{name}.weight" not in weights and f"{name}.weight.codes" in weights


def test_a_pattern_keeps_convolutions_in_float(fused: Fused, samples: Files, tmp_path: Path) -> None:
    made = fused.quantised(samples, tmp_path / "out", keep=("decoder.up_blocks.3", *DECODER_ENDS))
    kept = [name for name, entry in made.table.linears.items() if entry.reason == "keep pattern decoder.up_blocks.3"]
    assert kept and all(name.startswith("decoder.up_blocks.3.") for name in kept)
    assert not any(one.name in kept for one in quantized_linears(made.files.model(STEADY)))


# Beginning again


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    watched: list[int] = []
    watch = WatchedDecoder.watch

    def counting(self: WatchedDecoder, *given: Any) -> Any:
        watched.append(1)
        return watch(self, *given)

    monkeypatch.setattr(WatchedDecoder, "watch", counting)
    return watched


def test_what_was_seen_of_a_clip_is_kept(
    fused: Fused, samples: Files, quantised: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip whose record is damaged is decoded again, and no other; the result is the same, bit by bit."""
    watched = counted(monkeypatch)
    fused.quantised(samples, tmp_path / "one" / "out")
    assert len(watched) == CLIPS
    scratch = scratch_of(tmp_path / "one" / "out")
    (damaged,) = scratch.glob("seen-0001.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    scratch_of(tmp_path / "other" / "out").parent.mkdir()
    scratch.rename(scratch_of(tmp_path / "other" / "out"))
    again = fused.quantised(samples, tmp_path / "other" / "out")
    assert len(watched) == CLIPS + 1
    assert again.table == quantised.table
    name = f"{DECODER}/quantized.bin"
    assert again.inputs["program"][name].read_bytes() == quantised.inputs["program"][name].read_bytes()


# Faults


def with_latents(samples: Files, change: Callable[[Array], Array], folder: Path) -> Files:
    found: dict[str, Path] = {}
    for name, path in samples.items():
        clip = SafetensorsFile(path)
        found[name] = folder / Path(name).name
        safetensors.write(found[name], {**{key: clip[key] for key in clip}, LATENTS: change(clip[LATENTS].copy())})
    return found


def test_an_input_that_is_not_finite_is_named(fused: Fused, samples: Files, tmp_path: Path) -> None:
    def spoil(latents: Array) -> Array:
        latents[0, 0, 3, 0, 1, 1] = np.inf
        return latents

    with pytest.raises(UserError, match=r"the input of post_quant_conv is not finite"):
        fused.quantised(with_latents(samples, spoil, tmp_path), tmp_path / "out")


def test_an_input_that_was_always_zero_shows_nothing(fused: Fused, samples: Files, tmp_path: Path) -> None:
    program = fused.program
    assert program.model is not None
    centred = replace(program, model=replace(program.model, latent_mean=(0.0,) * len(program.model.latent_mean)))
    folder = tmp_path / "program"
    folder.mkdir()
    centred.write(folder)
    spoilt = replace(fused, inputs={**fused.inputs, "program": {**fused.inputs["program"], FILE: folder / FILE}})
    nothing = with_latents(samples, np.zeros_like, tmp_path)
    with pytest.raises(UserError, match=r"the input of post_quant_conv was 0 in all clips") as caught:
        spoilt.quantised(nothing, tmp_path / "out", keep=())
    assert caught.value.hint == "keep it in float: quantize.keep.patterns: [post_quant_conv]"


# What an engine makes of it


@pytest.fixture
def made(quantised: Decoder, tmp_path: Path) -> Made:
    """A program of the decoder alone."""
    folder = tmp_path / "alone"
    folder.mkdir()
    inputs = quantised.inputs
    whole = Made(inputs["program"], inputs["exported"], inputs["source"])
    return with_components(whole, {DECODER: quantised.files.component}, folder)


STAGE = Assemble(OpenVinoEngine(), quantized=(DECODER,))


def test_the_engine_convolves_integers(made: Made, quantised: Decoder, tmp_path: Path) -> None:
    out = build(STAGE, made, tmp_path)
    assert QuantTable.read(out / table_file(DECODER)) == quantised.table
    report = json.loads((out / ENGINE_REPORT).read_bytes())["components"][DECODER]
    for graph in (FIRST, STEADY):
        assert 0.9 < report[graph]["int8_convolution_share"] < 1
        assert report[graph]["kernels"]["Convolution"]["u8"] >= 26


FAULTS: Mapping[str, tuple[Callable[[Made, Path], Made], str]] = {
    "scales of a weight": (
        lambda made, folder: with_scales_off(made, VICTIM, folder),
        rf"vae_decoder/{VICTIM} has \S+ dB in the engine, and its QuantTable says \S+ dB",
    ),
    "scale of an input, where it is rounded": (
        lambda made, folder: edited(made, folder, rescale("QuantizeLinear"), VICTIM),
        rf"vae_decoder/{VICTIM} has \S+ dB in the engine, and its QuantTable says \S+ dB",
    ),
    "float weight": (
        lambda made, folder: edited(made, folder, take_the_float_weight, ONLY_STEADY),
        rf"vae_decoder/{ONLY_STEADY} is quantised in the QuantTable, and not in the graph",
    ),
}


OFTEN = "scales of a weight"
"""The others are slow."""


@pytest.mark.parametrize("fault", [pytest.param(one, marks=[] if one == OFTEN else pytest.mark.slow) for one in FAULTS])
def test_a_fault_of_what_was_quantised_is_found(made: Made, fault: str, tmp_path: Path) -> None:
    plant, message = FAULTS[fault]
    assert re.fullmatch(message, refusal(STAGE, plant(made, tmp_path), tmp_path))


def test_a_convolution_that_the_engine_makes_of_floats_is_found(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unround(model: ir.Model) -> None:
        for linear in quantized_linears(model):
            leave_the_input(model, linear.name)

    lowering_with(monkeypatch, "openvino", unround, last=False)
    message = refusal(STAGE, made, tmp_path)
    assert re.fullmatch(
        r"vae_decoder/first asks for INT8 in \S+ of what its convolutions compute, and the engine has 0.00%", message
    )
