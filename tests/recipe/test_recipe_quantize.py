"""The `quantize` part: what it means, and what it refuses, with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load
from wanc.recipe.quantize import (
    DECODER_ENDS,
    SCHEMES,
    TEXT_ENCODER_SCHEMES,
    TRAINABLE,
    Method,
    QuantizeSection,
    Scheme,
)
from wanc.recipe.show import to_yaml

from .conftest import TINY, AssertRefused, Write

INT8 = "quantize: {scheme: int8, calibrate: {prompts: prompts.txt}}\n"
ENCODER = "quantize: {text_encoder: int8, calibrate: {prompts: prompts.txt}}\n"
MEANT = [scheme for scheme in SCHEMES if scheme != "none"]
ONNX = "wanc: 1\nname: graph\nmodel: {onnx: graph.onnx}\n"
ALPHA = "search tries several for each input, and none leaves activations as they are"
INHERITED = "choose a scheme, or remove it; `quantize: null` takes away all that is inherited"
GLOB = "it has to be a glob over module paths, such as denoiser_high/blocks.0.* or blocks.*.ffn"

Load = Callable[..., QuantizeSection]


@pytest.fixture
def quantize(write: Write) -> Load:
    """What a right recipe with the given line has there, after `--set`."""

    def read(line: str = INT8, *overrides: str, base: str = TINY) -> QuantizeSection:
        (loaded,) = load(write("recipe.yaml", base + line), overrides)
        return loaded.recipe.quantize

    return read


def test_defaults(quantize: Load, tmp_path: Path) -> None:
    read = quantize()
    assert (read.method, read.smooth.alpha, read.emulate) == ("ptq", "search", False)
    assert read.calibrate.prompts == tmp_path / "prompts.txt"
    assert (read.calibrate.clips, read.calibrate.timestep_bins, read.calibrate.seed) == (16, 4, 0)
    assert read.calibrate.observer == "absmax"
    assert read.calibrate.shapes is None
    assert read.keep.patterns == ("patch_embedding", "condition_embedder", "proj_out")
    assert read.keep.sensitivity is None


def test_everything_can_be_said(quantize: Load) -> None:
    read = quantize(
        """\
quantize:
  scheme: int8
  method: qat
  calibrate:
    {prompts: a.txt, clips: 3, timestep_bins: 2, seed: 7, observer: entropy,
     shapes: [{name: small, height: 32, width: 48, frames: 5}]}
  smooth: {alpha: 0.5}
  keep: {patterns: [denoiser_high/blocks.0.*, "*.ffn"], sensitivity: {int8_share: 0.9}}
  emulate: true
"""
    )
    assert (read.method, read.smooth.alpha, read.emulate) == ("qat", 0.5, True)
    assert read.calibrate.observer == "entropy"
    assert read.calibrate.shapes is not None
    assert [(shape.height, shape.width, shape.frames) for shape in read.calibrate.shapes] == [(32, 48, 5)]
    assert read.keep.patterns == ("denoiser_high/blocks.0.*", "*.ffn")
    assert read.keep.sensitivity is not None
    assert (read.keep.sensitivity.int8_share, read.keep.sensitivity.max_drop_db) == (0.9, None)


@pytest.mark.parametrize("scheme", MEANT)
def test_smoothing_is_shown_only_where_activations_are_rounded(scheme: Scheme, quantize: Load) -> None:
    read = quantize(INT8, f"quantize.scheme={scheme}", "quantize.emulate=true")
    assert read.rounds_activations == (scheme in ("int8", "int8-dynamic", "fp8"))
    assert ("smooth" in read.model_dump()) == read.rounds_activations


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("scheme", MEANT)
def test_which_schemes_are_trained_for(scheme: Scheme, method: Method, quantize: Load) -> None:
    changes = (f"quantize.scheme={scheme}", f"quantize.method={method}", "quantize.emulate=true")
    if method == "ptq" or scheme in TRAINABLE:
        assert quantize(INT8, *changes).method == method
    else:
        with pytest.raises(RecipeError, match=f"quantize.method: there is no training for {scheme}"):
            quantize(INT8, *changes)


# the text encoder

MODEL = ("text_encoder", "denoiser_high", "denoiser_low", "vae_decoder")


@pytest.mark.parametrize("encoder", TEXT_ENCODER_SCHEMES)
@pytest.mark.parametrize("scheme", ["none", "int8", "int4-weight"])
def test_the_text_encoder_has_a_scheme_of_its_own(scheme: str, encoder: str, quantize: Load) -> None:
    if (scheme, encoder) == ("none", "none"):
        return
    read = quantize(INT8, f"quantize.scheme={scheme}", f"quantize.text_encoder={encoder}")
    asked = {"text_encoder": encoder, "denoiser_high": scheme, "denoiser_low": scheme}
    assert read.components(MODEL) == tuple(name for name, entry in asked.items() if entry != "none")
    assert read.components(("denoiser_high",)) == (() if scheme == "none" else ("denoiser_high",))
    assert read.rounds_activations == ("int8" in (scheme, encoder))


def test_what_is_about_denoisers_is_not_shown_where_they_are_float(quantize: Load, write: Write) -> None:
    read = quantize(ENCODER, "quantize.smooth.alpha=0.5")
    assert read.patterns == ()
    shown = read.model_dump(exclude_none=True)
    assert shown.keys() == {"scheme", "text_encoder", "vae_decoder", "calibrate", "smooth", "keep"}
    assert (shown["calibrate"].keys(), shown["keep"]) == ({"prompts", "observer"}, {})
    kept = quantize(ENCODER, "quantize.keep.patterns=[encoder.block.0]")
    assert kept.patterns == kept.model_dump()["keep"]["patterns"] == ("encoder.block.0",)


def test_usual_patterns_are_the_denoisers(quantize: Load) -> None:
    read = quantize(INT8, "quantize.text_encoder=int8")
    assert read.patterns == read.keep.patterns == ("patch_embedding", "condition_embedder", "proj_out")


# the decoder

DECODER = "quantize: {vae_decoder: int8, calibrate: {prompts: prompts.txt}}\n"
OPENVINO = "engine.kind=openvino"


def test_the_decoder_has_a_scheme_of_its_own(quantize: Load) -> None:
    read = quantize(DECODER, OPENVINO)
    assert read.schemes == ("int8",) and read.asking == "vae_decoder" and not read.rounds_activations
    assert read.components(MODEL) == ("vae_decoder",)
    both = quantize(INT8, OPENVINO, "quantize.vae_decoder=int8", "quantize.text_encoder=int8-weight")
    assert both.components(MODEL) == MODEL and both.asking == "scheme"


def test_usual_patterns_are_those_of_what_is_quantised(quantize: Load) -> None:
    usual = ("patch_embedding", "condition_embedder", "proj_out")
    both = quantize(INT8, OPENVINO, "quantize.vae_decoder=int8")
    assert both.patterns == (*usual, *DECODER_ENDS)
    assert (both.patterns_of("denoiser_low"), both.patterns_of("vae_decoder")) == (usual, DECODER_ENDS)
    alone = quantize(DECODER, OPENVINO)
    assert alone.patterns == alone.patterns_of("vae_decoder") == DECODER_ENDS
    written = quantize(DECODER, OPENVINO, "quantize.keep.patterns=[decoder.up_blocks.3]")
    assert written.patterns == written.patterns_of("vae_decoder") == ("decoder.up_blocks.3",)


def test_what_is_about_steps_and_linears_is_not_shown_for_a_decoder_alone(quantize: Load) -> None:
    shown = quantize(DECODER, OPENVINO, "quantize.calibrate.clips=3").model_dump(exclude_none=True)
    assert shown.keys() == {"scheme", "text_encoder", "vae_decoder", "calibrate", "keep"}
    assert (shown["calibrate"].keys(), shown["keep"]) == ({"prompts", "clips", "seed", "observer"}, {})


@pytest.mark.parametrize("text", ["0", "1", "0.25", "1e-1"])
def test_alpha_as_a_number(text: str, quantize: Load) -> None:
    alpha = quantize(INT8, f"quantize.smooth.alpha={text}").smooth.alpha
    assert (alpha, type(alpha)) == (float(text), float)


# inheritance


def test_prompts_lie_beside_the_file_that_names_them(write: Write, tmp_path: Path) -> None:
    write("recipes/base.yaml", TINY + INT8)
    child = write("mine/child.yaml", "extends: ../recipes/base.yaml\nquantize: {smooth: {alpha: none}}\n")
    (loaded,) = load(child)
    assert loaded.recipe.quantize.calibrate.prompts == tmp_path / "recipes/prompts.txt"
    assert loaded.recipe.quantize.smooth.alpha == "none"
    assert loaded.marks.where("quantize.calibrate.prompts") == "mine/../recipes/base.yaml:21:47"
    (loaded,) = load(child, ["quantize.calibrate.prompts=mine.txt"])
    assert loaded.recipe.quantize.calibrate.prompts == tmp_path / "mine.txt"


@pytest.mark.parametrize("line", ["quantize: null", "quantize: {scheme: none, calibrate: null}"])
def test_an_extending_recipe_takes_quantisation_away(line: str, write: Write) -> None:
    write("base.yaml", TINY + INT8)
    (loaded,) = load(write("child.yaml", f"extends: base.yaml\n{line}\n"))
    assert loaded.recipe.quantize == QuantizeSection()
    assert "quantize:\n  scheme: none\npartition:\n" in to_yaml(loaded.recipe)


def test_a_variant_takes_quantisation_away(write: Write) -> None:
    variants = "matrix: {int8: {}, w8: {quantize.scheme: int8-weight}, float: {quantize: null}}\n"
    loaded = load(write("recipe.yaml", TINY + INT8 + variants))
    assert [one.recipe.quantize.scheme for one in loaded] == ["int8", "int8-weight", "none"]


def test_a_variant_calibrates_at_the_recipes_own_sizes_again(write: Write) -> None:
    small = "shapes: [{name: small, height: 32, width: 32, frames: 5}]"
    variants = "matrix: {small: {}, own: {quantize.calibrate.shapes: null}}\n"
    loaded = load(write("recipe.yaml", TINY + INT8.replace("{prompts", f"{{{small}, prompts") + variants))
    assert [one.recipe.quantize.calibrate.shapes is None for one in loaded] == [False, True]


def test_another_rule_of_sensitivity_replaces_the_inherited_one(write: Write) -> None:
    write("base.yaml", TINY + INT8.replace("{scheme", "{keep: {sensitivity: {max_drop_db: 0.5}}, scheme"))
    keep = "{sensitivity: {max_drop_db: null, int8_share: 1}}"
    (loaded,) = load(write("child.yaml", f"extends: base.yaml\nquantize: {{keep: {keep}}}\n"))
    assert loaded.recipe.quantize.keep.sensitivity is not None
    assert loaded.recipe.quantize.keep.sensitivity.int8_share == 1.0


# what is refused; the line stands in place of the fourth one of a right recipe

# name: (what quantize is, column, message, hint)
WRONG: dict[str, tuple[str, int, str, str | None]] = {
    "unknown scheme": (
        "{scheme: int-8}",
        20,
        "quantize.scheme cannot be int-8",
        "did you mean int8?",
    ),
    "misspelt key": (
        "{scheme: int8, smoth: {alpha: 0.5}}",
        26,
        "quantize has no key smoth",
        "did you mean smooth?",
    ),
    "nothing to measure on": (
        "{scheme: int8}",
        11,
        "quantize.calibrate.prompts: int8 is measured on videos of your prompts, and none are given",
        "add a line such as `calibrate: {prompts: prompts.txt}`, a text file with a prompt in each line",
    ),
    "nothing to measure weights on": (
        "{scheme: int4-weight, calibrate: {clips: 4}}",
        44,
        "quantize.calibrate.prompts: int4-weight is measured on videos of your prompts, and none are given",
        "add a line such as `calibrate: {prompts: prompts.txt}`, a text file with a prompt in each line",
    ),
    "empty path": (
        '{scheme: int8, calibrate: {prompts: ""}}',
        47,
        "quantize.calibrate.prompts: the path is empty",
        "name a file or a folder",
    ),
    "no clips": (
        "{scheme: int8, calibrate: {prompts: a, clips: 0}}",
        57,
        "quantize.calibrate.clips has to be at least 1, not the number 0",
        "How many videos; they take the prompts in turn, and go back to the first one after the last.",
    ),
    "too many clips": (
        "{scheme: int8, calibrate: {prompts: a, clips: 1025}}",
        57,
        "quantize.calibrate.clips has to be at most 1024, not the number 1025",
        "How many videos; they take the prompts in turn, and go back to the first one after the last.",
    ),
    "too many bins": (
        "{scheme: int8, calibrate: {prompts: a, timestep_bins: 65}}",
        65,
        "quantize.calibrate.timestep_bins has to be at most 64, not the number 65",
        "Into how many ranges of timesteps the measurements are sorted, because activations change with the noise.",
    ),
    "negative seed": (
        "{scheme: int8, calibrate: {prompts: a, seed: -1}}",
        56,
        "quantize.calibrate.seed has to be at least 0, not the number -1",
        "The seed of the first video's noise; the next one's is one more.",
    ),
    "a width that is no whole number of tokens": (
        "{scheme: int8, calibrate: {prompts: a, shapes: [{name: a, height: 32, width: 40, frames: 5}]}}",
        88,
        "quantize.calibrate.shapes.0.width: 40 is not a multiple of 16: 8 pixels would be left over, because the VAE "
        "makes one point of 8 x 8 pixels, and the denoiser one token of 2 x 2 points",
        "the nearest are 32 and 48",
    ),
    "frames that nothing decodes to": (
        "{scheme: int8, calibrate: {prompts: a, shapes: [{name: a, height: 32, width: 48, frames: 6}]}}",
        100,
        "quantize.calibrate.shapes.0.frames: 6 is not 4n + 1: no number of latent frames decodes to it, because the "
        "first makes one frame and each later one four",
        "the nearest are 5 and 9",
    ),
    "a size without a name": (
        "{scheme: int8, calibrate: {prompts: a, shapes: [{height: 32, width: 48, frames: 5}]}}",
        59,
        "quantize.calibrate.shapes.0.name is missing",
        "What this size is called; part of file names.",
    ),
    "the name of a size": (
        "{scheme: int8, calibrate: {prompts: a, shapes: [64p]}}",
        59,
        "quantize.calibrate.shapes.0 has to be a mapping, not the text 64p",
        "its keys are name, height, width, frames",
    ),
    "no sizes": (
        "{scheme: int8, calibrate: {prompts: a, shapes: []}}",
        58,
        "quantize.calibrate.shapes has to be a list of at least 1, not an empty list",
        "The sizes of these videos, which they take in turn; the recipe's own unless given. Smaller ones are faster.",
    ),
    "a size that no clip has": (
        "{scheme: int8, calibrate: {prompts: a, clips: 1, shapes: [{name: a, height: 32, width: 32, frames: 5}, "
        "{name: b, height: 48, width: 48, frames: 5}]}}",
        68,
        "quantize.calibrate.shapes: 1 clips cannot take 2 shapes in turn",
        "raise clips to 2, or remove shapes",
    ),
    "sizes without a scheme": (
        "{calibrate: {shapes: [{name: a, height: 32, width: 32, frames: 5}]}}",
        23,
        "quantize.calibrate: it has no effect while scheme is none",
        INHERITED,
    ),
    "unknown observer": (
        "{scheme: int8, calibrate: {prompts: a, observer: minmax}}",
        60,
        "quantize.calibrate.observer cannot be minmax",
        "it can be absmax, percentile, mse or entropy",
    ),
    "alpha off": (
        "{scheme: int8, calibrate: {prompts: a}, smooth: {alpha: off}}",
        67,
        "quantize.smooth.alpha: it has to be search, none or a number from 0 to 1",
        ALPHA,
    ),
    "alpha too large": (
        "{scheme: int8, calibrate: {prompts: a}, smooth: {alpha: 1.5}}",
        67,
        "quantize.smooth.alpha: it has to be search, none or a number from 0 to 1",
        ALPHA,
    ),
    "alpha as true": (
        "{scheme: int8, calibrate: {prompts: a}, smooth: {alpha: true}}",
        67,
        "quantize.smooth.alpha: it has to be search, none or a number from 0 to 1",
        ALPHA,
    ),
    "alpha as a list": (
        "{scheme: int8, calibrate: {prompts: a}, smooth: {alpha: [0.5]}}",
        67,
        "quantize.smooth.alpha: it has to be search, none or a number from 0 to 1",
        ALPHA,
    ),
    "smoothing for weights alone": (
        "{scheme: int8-weight, calibrate: {prompts: a}, smooth: {alpha: search}}",
        66,
        "quantize.smooth: int8-weight leaves activations in float: there is nothing to smooth",
        "remove it; `smooth: null` takes away an inherited one",
    ),
    "pattern with a space": (
        '{scheme: int8, calibrate: {prompts: a}, keep: {patterns: ["proj_out, ffn"]}}',
        69,
        "quantize.keep.patterns.0 cannot be proj_out, ffn",
        GLOB,
    ),
    "empty pattern": (
        '{scheme: int8, calibrate: {prompts: a}, keep: {patterns: [ffn, ""]}}',
        74,
        "quantize.keep.patterns.1 cannot be ''",
        GLOB,
    ),
    "pattern twice": (
        "{scheme: int8, calibrate: {prompts: a}, keep: {patterns: [ffn, ffn]}}",
        74,
        "quantize.keep.patterns.1: ffn stands twice",
        "name each once",
    ),
    "two rules of sensitivity": (
        "{scheme: int8, calibrate: {prompts: a}, keep: {sensitivity: {max_drop_db: 1, int8_share: 0.9}}}",
        100,
        "quantize.keep.sensitivity.int8_share: max_drop_db and int8_share exclude each other",
        "remove one of them; `max_drop_db: null` takes away an inherited one",
    ),
    "no rule of sensitivity": (
        "{scheme: int8, calibrate: {prompts: a}, keep: {sensitivity: {}}}",
        71,
        "quantize.keep.sensitivity: either max_drop_db or int8_share has to be given",
        "add one, such as `max_drop_db: 0.5`",
    ),
    "drop of nothing": (
        "{scheme: int8, calibrate: {prompts: a}, keep: {sensitivity: {max_drop_db: 0}}}",
        85,
        "quantize.keep.sensitivity.max_drop_db has to be above 0, not the number 0",
        "A Linear stays in float if quantising it costs the final latents, or the text states, more than this, in dB.",
    ),
    "share above one": (
        "{scheme: int8, calibrate: {prompts: a}, keep: {sensitivity: {int8_share: 90}}}",
        84,
        "quantize.keep.sensitivity.int8_share has to be at most 1, not the number 90",
        "The most sensitive Linears stay in float, as long as this share of the Linears' FLOPs is quantised.",
    ),
    "emulate as text": (
        "{scheme: int8, calibrate: {prompts: a}, emulate: yes}",
        60,
        "quantize.emulate has to be true or false, not the text 'yes'",
        "write true",
    ),
    "method without a scheme": (
        "{method: ptq}",
        20,
        "quantize.method: it has no effect while scheme is none",
        INHERITED,
    ),
    "prompts without a scheme": (
        "{scheme: none, calibrate: {prompts: a}}",
        37,
        "quantize.calibrate: it has no effect while scheme is none",
        INHERITED,
    ),
    "smoothing without a scheme": (
        "{scheme: none, smooth: {alpha: none}}",
        34,
        "quantize.smooth: it has no effect while scheme is none",
        INHERITED,
    ),
    "kept without a scheme": (
        "{keep: {patterns: []}}",
        18,
        "quantize.keep: it has no effect while scheme is none",
        INHERITED,
    ),
    "unknown scheme of the text encoder": (
        "{text_encoder: int4-weight, calibrate: {prompts: a}}",
        26,
        "quantize.text_encoder cannot be int4-weight",
        "did you mean int8-weight?",
    ),
    "nothing to measure the text encoder on": (
        "{text_encoder: int8-weight}",
        11,
        "quantize.calibrate.prompts: int8-weight is measured on your prompts, and none are given",
        "add a line such as `calibrate: {prompts: prompts.txt}`, a text file with a prompt in each line",
    ),
    **{
        f"{key} without denoisers": (
            f"{{text_encoder: int8, calibrate: {{prompts: a, {key}: {value}}}}}",
            58 + len(key),
            f"quantize.calibrate.{key}: it is about denoisers, and has no effect while scheme is none",
            f"choose a scheme, or remove it; `{key}: null` takes away an inherited one",
        )
        for key, value in {
            "clips": "4",
            "shapes": "[{name: a, height: 32, width: 32, frames: 5}]",
            "timestep_bins": "2",
            "seed": "1",
        }.items()
    },
    **{
        f"{key} without denoisers": (
            f"{{text_encoder: int8, calibrate: {{prompts: a}}, {key}: {value}}}",
            59 + len(key),
            f"quantize.{key}: it is about denoisers, and has no effect while scheme is none",
            f"choose a scheme, or remove it; `{key}: null` takes away an inherited one",
        )
        for key, value in {"attention": "fp8", "method": "qat", "train": "{rounds: 2}", "emulate": "true"}.items()
    },
    "unknown scheme of the decoder": (
        "{vae_decoder: int8-weight, calibrate: {prompts: a}}",
        25,
        "quantize.vae_decoder cannot be int8-weight",
        "it can be none or int8",
    ),
    "nothing to measure the decoder on": (
        "{vae_decoder: int8}",
        11,
        "quantize.calibrate.prompts: int8 is measured on videos of your prompts, and none are given",
        "add a line such as `calibrate: {prompts: prompts.txt}`, a text file with a prompt in each line",
    ),
    "steps without denoisers": (
        "{vae_decoder: int8, calibrate: {prompts: a, timestep_bins: 2}}",
        70,
        "quantize.calibrate.timestep_bins: it is about denoisers, and has no effect while scheme is none",
        "choose a scheme, or remove it; `timestep_bins: null` takes away an inherited one",
    ),
    "smoothing of convolutions": (
        "{vae_decoder: int8, calibrate: {prompts: a}, smooth: {alpha: search}}",
        64,
        "quantize.smooth: it is about Linears, and convolutions alone are quantised",
        "quantize Linears as well, or remove it; `smooth: null` takes away an inherited one",
    ),
    "sensitivity of convolutions": (
        "{vae_decoder: int8, calibrate: {prompts: a}, keep: {sensitivity: {int8_share: 0.9}}}",
        76,
        "quantize.keep.sensitivity: it is about Linears, and convolutions alone are quantised",
        "quantize Linears as well, or remove it; `sensitivity: null` takes away an inherited one",
    ),
    "smoothing for weights alone, of the text encoder": (
        "{text_encoder: int8-weight, calibrate: {prompts: a}, smooth: {alpha: search}}",
        72,
        "quantize.smooth: int8-weight leaves activations in float: there is nothing to smooth",
        "remove it; `smooth: null` takes away an inherited one",
    ),
    "smoothing for weights alone, of all": (
        "{scheme: int4-weight, text_encoder: int8-weight, calibrate: {prompts: a}, smooth: {alpha: search}}",
        93,
        "quantize.smooth: int4-weight and int8-weight leave activations in float: there is nothing to smooth",
        "remove it; `smooth: null` takes away an inherited one",
    ),
    "emulated without a scheme": (
        "{emulate: true}",
        21,
        "quantize.emulate: it has no effect while scheme is none",
        INHERITED,
    ),
    "training for another scheme": (
        "{scheme: int8-dynamic, method: qat, calibrate: {prompts: a}}",
        42,
        "quantize.method: there is no training for int8-dynamic",
        "set quantize.scheme to int8 or int4-weight, or leave method at ptq",
    ),
    "training without the method": (
        "{scheme: int8, calibrate: {prompts: a}, train: {rounds: 2}}",
        58,
        "quantize.train: nothing is trained where the method is ptq",
        "set quantize.method to qat, or remove it; `train: null` takes away an inherited one",
    ),
    "attention in fp8 without a scheme": (
        "{attention: fp8}",
        23,
        "quantize.attention: it has no effect while scheme is none",
        INHERITED,
    ),
    "attention in fp8 beside other codes": (
        "{scheme: int8, attention: fp8, calibrate: {prompts: a}}",
        37,
        "quantize.attention: attention in fp8 does not go with Linears in int8",
        "set quantize.scheme to fp8, or remove it: attention stays in float then",
    ),
    "attention in fp8 on a CPU": (
        "{scheme: fp8, attention: fp8, emulate: true, calibrate: {prompts: a}}",
        36,
        "quantize.attention: onnxruntime has no fp8 attention on CPUs, and none is emulated",
        "leave quantize.attention at float, or build for GPUs: engine.kind: tensorrt-rtx",
    ),
    "fp8 without kernels": (
        "{scheme: fp8, calibrate: {prompts: a}}",
        20,
        "quantize.scheme: onnxruntime has no fp8 on CPUs",
        "set quantize.scheme to int8, or quantize.emulate to true for its accuracy without its speed",
    ),
    "fp8 without kernels in openvino": (
        "{scheme: fp8, calibrate: {prompts: a}}\nengine: {kind: openvino}",
        20,
        "quantize.scheme: openvino has no fp8 on CPUs",
        "set quantize.scheme to int8, or quantize.emulate to true for its accuracy without its speed",
    ),
    "ranges of each input without kernels": (
        "{scheme: int8-dynamic, calibrate: {prompts: a}}\nengine: {kind: openvino}",
        20,
        "quantize.scheme: openvino has no kernels that round each input by its own range",
        "set engine.kind to onnxruntime, or quantize.scheme to int8",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_place(case: str, assert_refused: AssertRefused) -> None:
    line, column, message, hint = WRONG[case]
    assert_refused("wanc: 1", f"wanc: 1\nquantize: {line}", f"4:{column}", message, hint)


def test_merged_projections_cannot_be_quantised(assert_refused: AssertRefused, quantize: Load) -> None:
    """Unless the pass is left out again."""
    line = "fuse: {passes: [fold, merge-projections]}"
    assert_refused(
        "wanc: 1",
        f"wanc: 1\n{INT8}{line}",
        "5:23",
        "fuse.passes.1: merged projections cannot be quantised so far",
        "remove merge-projections, or set quantize.scheme to none",
    )
    assert quantize(INT8, "fuse.passes=[merge-projections]", "fuse.skip=[merge-projections]").scheme == "int8"


def test_merged_projections_of_a_text_encoder_cannot_be_quantised(assert_refused: AssertRefused) -> None:
    line = "fuse: {passes: [fold, merge-projections]}"
    assert_refused(
        "wanc: 1",
        f"wanc: 1\n{ENCODER}{line}",
        "5:23",
        "fuse.passes.1: merged projections cannot be quantised so far",
        "remove merge-projections, or set quantize.text_encoder to none",
    )


def test_the_text_encoder_of_another_model_cannot_be_calibrated(write: Write) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", ONNX + ENCODER))
    assert caught.value.message == "quantize.text_encoder: only text-to-video models can be calibrated so far"
    assert caught.value.where == "recipe.yaml:4:26"


def test_other_models_cannot_be_calibrated(write: Write) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", ONNX + INT8))
    assert caught.value.message == "quantize.scheme: only text-to-video models can be calibrated so far"
    assert caught.value.where == "recipe.yaml:4:20"
    assert caught.value.hint == "remove quantize, or give a Wan checkpoint as model.source"


def test_fp8_is_emulated(quantize: Load) -> None:
    assert quantize(INT8, "quantize.scheme=fp8", "quantize.emulate=true").scheme == "fp8"
