"""What is counted of Wan2.2-T2V-A14B, against what is known of it: FLOPs, bytes, and what a builder measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanc.compiler.planner.costs import PartCosts
from wanc.compiler.planner.count import flops

from .counted import A14B, ISLANDS, PUBLISHED_AS, costs, sparse

MIB = 2**20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse(A14B, tmp_path_factory.mktemp("checkpoints"))


# Petaflops of one execution, and attention's share of what is not cross-attention's, by the model's configuration.
@pytest.mark.parametrize(("shape", "petaflops", "attention"), [("480p", 1.678, 0.524), ("720p", 6.523, 0.718)])
def test_flops_are_those_of_the_configuration(root: Path, shape: str, petaflops: float, attention: float) -> None:
    expert, _ = costs(root, shape).experts
    assert flops(expert.parts) / 1e15 == pytest.approx(petaflops, rel=0.002)
    assert flops(expert.parts, kind="attention") / flops(expert.parts) == pytest.approx(attention, abs=0.01)


@pytest.mark.parametrize(("shape", "teraflops"), [("480p", 0.285e3 / 21), ("720p", 31.5)])
def test_a_latent_frame_is_decoded_in_as_many_flops_as_known(root: Path, shape: str, teraflops: float) -> None:
    decoder = costs(root, shape).decoder
    assert flops(decoder.parts) / 1e12 == pytest.approx(teraflops, rel=0.005)
    assert decoder.executions == 21


def test_weights_are_all_of_the_model(root: Path) -> None:
    found = costs(root, "480p")
    # Parameters by the configuration; the time part is tabulated, and does not go along.
    for expert in found.experts:
        assert expert.weights == pytest.approx(2 * 14.288e9, rel=0.02)
    table = 256_384 * 4096
    assert found.text_encoder.weights == pytest.approx(2 * (5_680_910_336 - table), rel=0.001)


def test_steps_are_divided_where_the_model_divides_them(root: Path) -> None:
    assert [expert.executions for expert in costs(root, "480p").experts] == [26, 14]
    assert [expert.branches for expert in costs(root, "480p").experts] == [2, 2]


# What the builder of TensorRT-RTX 1.7.1.116 said of five blocks in bf16 between islands of fp32.
@pytest.mark.parametrize(("shape", "mebibytes"), [("480p", 3207), ("720p", 7393)])
def test_activations_are_what_a_builder_measured(root: Path, shape: str, mebibytes: int) -> None:
    expert, _ = costs(root, shape).experts
    assert expert.parts[3].activation / MIB == pytest.approx(mebibytes, rel=0.01)


@pytest.mark.parametrize(("shape", "boundary", "kept"), [("480p", 671e6, 10.5e6), ("720p", 1548e6, 10.5e6)])
def test_what_crosses_a_cut_and_what_is_kept_for_a_branch(root: Path, shape: str, boundary: float, kept: float) -> None:
    part = costs(root, shape).experts[0].parts[3]
    assert part.leaves == pytest.approx(boundary, rel=0.001)
    assert part.kept == pytest.approx(kept, rel=0.01)


def test_integers_halve_weights_and_not_attention(root: Path) -> None:
    eight = (*PUBLISHED_AS, "quantize.scheme=int8", "quantize.calibrate.prompts=p")
    float_, integer = (costs(root, "480p", *given).experts[0].parts[3] for given in (PUBLISHED_AS, eight))
    assert integer.weights / float_.weights == pytest.approx(0.5, abs=0.01)
    kinds = {kernel.kind: kernel.format for kernel in integer.kernels}
    assert kinds["linear"] == "int8" and kinds["attention"] == "bf16"


@pytest.mark.parametrize("scheme", ["int8", "int8-weight"])
def test_a_text_encoder_of_codes_is_half_as_large(root: Path, scheme: str) -> None:
    """And denoisers stay what they are; what a pattern keeps has two bytes."""
    asked = (*PUBLISHED_AS, "quantize.calibrate.prompts=p", "quantize.text_encoder=int8")
    if scheme == "int8-weight":  # which no engine for GPUs has
        asked = (
            "engine.kind=openvino",
            "precision.compute=bf16",
            ISLANDS,
            *asked[-2:],
            f"quantize.text_encoder={scheme}",
        )
    float_ = costs(root, "480p", *(entry for entry in asked if not entry.startswith("quantize")))
    codes = costs(root, "480p", *asked)
    assert codes.text_encoder.weights / float_.text_encoder.weights == pytest.approx(0.5, abs=0.01)
    assert [expert.weights for expert in codes.experts] == [expert.weights for expert in float_.experts]
    formats = {kernel.format for kernel in codes.text_encoder.kernels() if kernel.kind == "linear"}
    assert formats == ({"int8"} if scheme == "int8" else {"bf16"})
    kept = costs(root, "480p", *asked, "quantize.keep.patterns=[text_encoder/*.wo]").text_encoder.weights
    of_wo = 24 * 4096 * 10240
    assert kept - codes.text_encoder.weights == pytest.approx(of_wo, rel=0.01)


def test_convolutions_of_codes_are_a_quarter_as_large_and_only_the_decoders(root: Path) -> None:
    """In float32 beside them; what embeds patches is a convolution as well, and stays as it is."""
    openvino = ("engine.kind=openvino", "quantize.calibrate.prompts=p", "quantize.keep.patterns=[]")
    floats, integers = (
        costs(root, "480p", *openvino, "quantize.scheme=int8", f"quantize.vae_decoder={scheme}")
        for scheme in ("none", "int8")
    )
    assert integers.experts == floats.experts
    assert integers.decoder.weights == pytest.approx(floats.decoder.weights / 4, rel=0.01)
    numbers = {kernel.format for kernel in integers.decoder.kernels() if kernel.kind == "convolution"}
    assert numbers == {"int8"}
    (patches, *_) = [kernel for kernel in integers.experts[0].kernels() if kernel.kind == "convolution"]
    assert patches.format == "fp32"


def test_attention_in_fp8_is_counted_as_that(root: Path) -> None:
    eight = (*PUBLISHED_AS, "engine.targets=[sm90]", "quantize.scheme=fp8", "quantize.calibrate.prompts=p")
    of_attention = {
        kernel.format
        for kernel in costs(root, "480p", *eight, "quantize.attention=fp8").experts[0].parts[3].kernels
        if kernel.kind == "attention"
    }
    assert of_attention == {"fp8"}
    assert {kernel.format for kernel in costs(root, "480p", *eight).experts[0].parts[3].kernels} == {"fp8", "bf16"}


def test_what_a_pattern_keeps_stays_in_float(root: Path) -> None:
    given = (
        *PUBLISHED_AS, "quantize.scheme=int8", "quantize.calibrate.prompts=p",
        "quantize.keep.patterns=[denoiser_high/blocks.0, denoiser_high/blocks.39]",
    )  # fmt: skip
    high, low = ([_integers(part) for part in expert.parts] for expert in costs(root, "480p", *given).experts)
    # The last block's part has proj_out as well, which no pattern names.
    assert (high[0], high[1], high[39]) == (0, 8, 1)
    assert (low[0], low[39]) == (8, 9)


def _integers(part: PartCosts) -> int:
    return sum(kernel.kind == "linear" and kernel.format == "int8" for kernel in part.kernels)


@pytest.mark.parametrize("shape", ["480p", "720p"])
def test_a_decoder_in_full_precision_needs_what_the_builder_said(root: Path, shape: str) -> None:
    # 7,607 and 17,554 MiB beside the caches, which are there twice: as they come and as they go.
    caches = {"480p": 2 * 3.78e9, "720p": 2 * 8.72e9}[shape]
    needs = max(part.activation for part in costs(root, shape).decoder.parts) - caches
    assert needs / MIB == pytest.approx({"480p": 7607, "720p": 17554}[shape], rel=0.03)
