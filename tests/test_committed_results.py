"""The committed reports on tiny-wan hold what the documentation says of them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SCHEMES = {"int8", "int8-dynamic", "int8-weight", "int4-weight", "fp8"}


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_bytes())


def test_int8_makes_the_same_videos() -> None:
    """Of 200 prompts and seeds, held out from calibration."""
    report = read("quantization-tiny-wan.json")
    bundles = {entry["bundle"].removeprefix("tiny-wan-"): entry for entry in report["bundles"]}
    assert (report["pairs"], report["steps"], bundles.keys()) == (200, 20, SCHEMES)
    int8 = bundles["int8"]
    assert int8["missed"] == [] and int8["held"]
    assert int8["psnr_db"] >= 32
    assert int8["cosine"] >= 0.995
    assert max(map(abs, int8["points"].values())) <= 2
    assert abs(int8["motion_ratio"] - 1) <= 0.03


def test_what_calibrating_at_smaller_sizes_costs() -> None:
    """Half of the tokens cost nothing, half of the frames little, and a quarter of the area too much."""
    report = read("calibration-sizes-tiny-wan.json")
    bundles = {entry["bundle"].removeprefix("tiny-wan-int8"): entry for entry in report["bundles"]}
    assert (report["pairs"], report["steps"]) == (200, 20)
    assert bundles.keys() == {"", "-48x48x17", "-64x64x9", "-64x64x5", "-32x32x17"}
    lost = {name: bundles[""]["psnr_db"] - entry["psnr_db"] for name, entry in bundles.items()}
    assert abs(lost["-48x48x17"]) < 1
    assert 3 < lost["-64x64x9"] < 5 < lost["-64x64x5"] < 10 < lost["-32x32x17"]
    assert bundles["-48x48x17"]["missed"] == bundles["-64x64x9"]["missed"] == []
    assert bundles["-32x32x17"]["missed"]


@pytest.mark.parametrize(("scheme", "least"), [("int4-weight", 0.4), ("int8", 0.1)])
def test_training_cuts_the_error_of_trajectories(scheme: str, least: float) -> None:
    """Against the best quantisation without training; on held-out prompts, in half an hour on two cores."""
    found = read("qat-tiny-wan.json")[scheme]
    best = min(error["final"] for error in found["after_training"].values())
    assert 1 - found["with_training"]["final"] / best >= least
    assert found["training_seconds"]["wall"] <= 30 * 60


def test_lowering_for_gpus_costs_little() -> None:
    """Against the float model, on eight states of each expert: bfloat16, and INT8 against itself in float32."""
    found = read("lowered-tiny-wan.json")["db"]
    assert found.keys() == {"bf16", "int8", "fp8", "fp8-attention"}
    for expert in ("denoiser_high", "denoiser_low"):
        figures = {name: {how: mean(db) for how, db in experts[expert].items()} for name, experts in found.items()}
        assert {len(db) for experts in found.values() for db in experts[expert].values()} == {8}
        assert figures["bf16"]["lowered"] >= 38
        assert figures["int8"]["lowered"] >= figures["int8"]["program"] - 3
        assert figures["int8"]["lowered"] > figures["fp8"]["lowered"] > figures["fp8-attention"]["lowered"] > 25


def test_a_quantised_text_encoder_is_close() -> None:
    """By both engines alike, on prompts held out from calibration."""
    found = read("text-encoder-tiny-wan.json")["db"]
    assert {len(db) for db in found.values()} == {200}
    for scheme, least_mean, least in (("int8", 33, 24), ("int8-weight", 44, 36)):
        ours, openvino = found[scheme], found[f"openvino-{scheme}"]
        assert mean(ours) >= least_mean and min(ours) >= least
        assert abs(mean(ours) - mean(openvino)) < 0.5


def test_a_decoder_in_fewer_bits_is_close() -> None:
    """Beside the float one, on the latents of prompts that calibration has not seen."""
    found = read("vae-decoder-tiny-wan.json")["variants"]
    assert found.keys() == {"float", "bf16", "int8", "int8-bf16"}
    for name, least_mean, least in (("bf16", 55, 50), ("int8", 50, 44), ("int8-bf16", 50, 44)):
        db = found[name]["psnr_db"]
        assert len(db) == 40 and mean(db) >= least_mean and min(db) >= least, name
