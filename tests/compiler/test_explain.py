"""What `wanc passes` and `wanc build --explain STAGE` tell, for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from wanc.compiler.engines.onnxruntime import passes as onnxruntime
from wanc.compiler.engines.openvino import passes as openvino
from wanc.compiler.engines.tensorrt import passes as tensorrt
from wanc.compiler.explain import explain_tables
from wanc.compiler.passes.registry import all_passes
from wanc.compiler.places import PLACES
from wanc.compiler.program.quant_table import AttentionEntry, QuantTable, QuantTableEntry
from wanc.recipe.schema import EngineSection

from ..conftest import ROOT, Wanc
from .builder import Project

REPORT = {
    "components": {
        "denoiser_high": {
            "step": {
                "nodes": {"before": 90, "after": 30},
                "passes": [
                    {"name": "rope", "fired": 2, "nodes": -40, "refused": []},
                    {"name": "norms", "fired": 0, "nodes": 0, "refused": []},
                    {
                        "name": "attention",
                        "fired": 1,
                        "nodes": -20,
                        "refused": [
                            {"reason": "too odd", "times": 2, "example": "val_7"},
                            {"reason": "too even", "times": 1, "example": "val_9"},
                        ],
                    },
                ],
            }
        }
    }
}


def test_each_pass_tells_how_often_it_fired_or_why_not() -> None:
    (table,) = explain_tables("fuse", REPORT)
    assert table.title == "denoiser_high/step: 90 → 30 nodes"
    assert [tuple(row) for row in table.rows] == [
        ("rope", "2 ×", "-40", ""),
        ("norms", "0 ×", "+0", "no match"),
        ("attention", "1 ×", "-20", "2 × too odd (val_7)"),
        ("", "", "", "1 × too even (val_9)"),
    ]


def test_what_goes_without_firing_is_a_match() -> None:
    """As constants do that become weights."""
    passes = [{"name": "share", "fired": 0, "nodes": -3, "refused": []}]
    report = {"components": {"a": {"b": {"nodes": {"before": 4, "after": 1}, "passes": passes}}}}
    (table,) = explain_tables("fuse", report)
    assert [tuple(row) for row in table.rows] == [("share", "0 ×", "-3", "")]


def test_each_graph_tells_what_the_engine_built_of_it() -> None:
    built = {
        "kernels": {"FusedConv": {"float": 2}, "MatMul": {"float": 10, "int8": 30}},
        "fused": {"Attention": 10, "RMSNormalization": 5},
        "int8_linear_share": 0.75,
        "int8_total_share": 0.5,
        "bytes": 1536,
    }
    (entry,) = REPORT["components"]["denoiser_high"].values()
    report = {"engine": "onnxruntime", "version": "1.0", "components": {"denoiser_high": {"step": {**entry, **built}}}}
    passes, kernels = explain_tables("engine", report)
    assert passes == explain_tables("fuse", REPORT)[0]
    assert kernels.title == (
        "denoiser_high/step: 42 kernels, fused 10 Attention, 5 RMSNormalization;"
        " INT8 in 75.0% of Linears, 50.0% of all products; 1.5 KiB"
    )
    assert [tuple(row) for row in kernels.rows] == [
        ("FusedConv", "2", "float"),
        ("MatMul", "10", "float"),
        ("MatMul", "30", "int8"),
    ]


def test_each_linear_tells_what_it_costs_and_why_it_is_float() -> None:
    linears = {
        "blocks.10.ffn": QuantTableEntry("int8", "no keep pattern fits", 0.5, 1.0, 38.25, 0.02, 0.75, 1.5e-7),
        "blocks.2.ffn": QuantTableEntry("int8", "no keep pattern fits", 0.25, 0.2, 40.0, 0.02),
        "proj_out": QuantTableEntry("float", "keep pattern proj_out", 0.25, None),
    }
    table = QuantTable("denoiser_low", "ptq", 128, linears)
    (shown,) = explain_tables("quantize", {"denoiser_low": table.as_json()})
    assert shown.title == "denoiser_low: 2 of 3 Linears quantised, 75.0% of their FLOPs; ptq, 128 samples"
    assert [tuple(row) for row in shown.rows] == [
        ("blocks.2.ffn", "int8", "25.0%", "0.20", "40.0", "", "", "no keep pattern fits"),
        ("blocks.10.ffn", "int8", "50.0%", "1.00", "38.2", "0.75", "1.5e-07", "no keep pattern fits"),
        ("proj_out", "float", "25.0%", "", "", "", "", "keep pattern proj_out"),
    ]


def test_a_build_that_quantises_nothing_has_nothing_to_explain() -> None:
    assert explain_tables("quantize", {}) == []


def test_attentions_that_are_rounded_have_a_table_of_their_own() -> None:
    attentions = {
        "blocks.10.attn1": AttentionEntry("fp8", "no keep pattern fits", 1.0, 0.0127, 0.016, 0.0139, 0.00223214),
        "blocks.2.attn1": AttentionEntry("float", "keep pattern blocks.2", 0.2),
    }
    _, shown = explain_tables(
        "quantize", {"denoiser_low": QuantTable("denoiser_low", "ptq", 128, {}, attentions).as_json()}
    )
    assert shown.title == "denoiser_low: 1 of 2 attentions quantised"
    assert [tuple(row) for row in shown.rows] == [
        ("blocks.2.attn1", "float", "", "", "", "", "keep pattern blocks.2"),
        ("blocks.10.attn1", "fp8", "0.0127", "0.016", "0.0139", "0.00223", "no keep pattern fits"),
    ]


def test_a_build_explains_what_fuse_did(project: Project, tmp_path: Path, wanc: Wanc) -> None:
    copy = project.copy(tmp_path)
    done = wanc("build", copy.recipe, "-o", copy.output, "--explain", "fuse")
    assert done.code == 0, done.err
    assert "fuse: cached" in done.err
    assert "denoiser_high/step: " in done.out and "attention-heads" in done.out
    done = wanc("build", copy.recipe, "-o", copy.output, "--explain", "fuse", "--json")
    graphs = json.loads(done.out)["fuse"]["components"]["denoiser_high"]["step"]
    fired = {entry["name"]: entry["fired"] for entry in graphs["passes"]}
    # One block: queries and keys are rotated, and there is an attention to itself and one to the text.
    assert (fired["rope"], fired["attention-heads"]) == (2, 2)
    assert graphs["nodes"]["after"] < graphs["nodes"]["before"] / 2


def test_a_build_explains_what_the_engine_did(tiny_recipe: Path, tiny_bundle: Path, wanc: Wanc) -> None:
    build = ("build", tiny_recipe, "-o", tiny_bundle.parents[1], "--explain", "engine")
    done = wanc(*build)
    assert done.code == 0, done.err
    assert "engine: cached" in done.err
    assert "2 × the attention does more, or on other axes (" in done.out  # masked, in the text encoder
    told = json.loads(wanc(*build, "--json").out)["engine"]
    assert told["engine"] == "onnxruntime"
    for component, graphs in told["components"].items():
        for graph, entry in graphs.items():
            assert f"{component}/{graph}: {entry['nodes']['before']} → {entry['nodes']['after']} nodes" in done.out
            assert [applied["name"] for applied in entry["passes"]] == [entry.name for entry in onnxruntime.PASSES]
            nodes = sum(applied["nodes"] for applied in entry["passes"])
            assert nodes == entry["nodes"]["after"] - entry["nodes"]["before"]
    step = told["components"]["denoiser_high"]["step"]
    (kernels,) = [applied for applied in step["passes"] if applied["name"] == "kernels"]
    # Five blocks: two attentions and a GELU each.
    assert kernels["fired"] == 15
    assert f"fused {step['fused']['Attention']} Attention, " in done.out


def test_passes_are_listed_place_by_place_in_their_order(wanc: Wanc) -> None:
    listed = json.loads(wanc("passes", "--json").out)
    expected = [
        (place, entry.name)
        for place, entries in (
            ("fuse", all_passes()), ("onnxruntime", onnxruntime.PASSES), ("openvino", openvino.PASSES),
            ("tensorrt-rtx", tensorrt.PASSES), ("tensorrt", tensorrt.PASSES),
        )
        for entry in entries
    ]  # fmt: skip
    assert [(entry["place"], entry["name"]) for entry in listed] == expected
    for index, entry in enumerate(listed):
        earlier = {other["name"] for other in listed[:index] if other["place"] == entry["place"]}
        assert set(entry["after"]) <= earlier
    shown = wanc("passes").out
    assert all(entry["name"] in shown and entry["summary"] in shown for entry in listed)
    assert "lowering for openvino" in shown


def modules_behind(statement: str) -> set[str]:
    """What a fresh interpreter has imported after a statement."""
    program = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_listing_needs_no_engine_and_no_torch() -> None:
    imported = modules_behind("import wanc.compiler.places")
    assert not {"torch", "openvino", "onnxruntime", "diffusers", "transformers"} & imported


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("passes.rewrite", {"rewrite"}),
        ("passes.apply", {"apply", "draws", "fold", "rewrite"}),
        ("engines.onnxruntime.passes", {"draws", "fold", "order", "rewrite"}),
        ("engines.openvino.passes", {"draws", "order", "rewrite"}),
    ],
)
def test_who_applies_passes_does_not_import_all_of_them(module: str, expected: set[str]) -> None:
    """A stage's key covers what it imports."""
    prefix = "wanc.compiler.passes."
    imported = modules_behind(f"import wanc.compiler.{module}")
    assert {name.removeprefix(prefix) for name in imported if name.startswith(prefix)} == expected


def test_every_engine_that_a_recipe_can_name_is_a_place() -> None:
    built = {*get_args(EngineSection.model_fields["kind"].annotation)}
    assert set(PLACES) == {"fuse", *built}


@pytest.mark.parametrize(("place", "heading"), [("onnxruntime", "For ONNX Runtime:"), ("openvino", "For OpenVINO:")])
def test_the_documentation_lists_the_passes_of_each_engine(place: str, heading: str) -> None:
    page = (ROOT / "docs" / "passes.md").read_text("utf-8")
    table = page.split(f"{heading}\n\n")[1].partition("\n\n")[0].splitlines()
    assert table[2:] == [f"| `{entry.name}` | {entry.summary} |" for entry in PLACES[place]]


def test_no_two_passes_have_one_name() -> None:
    passes = {id(entry): entry for entries in PLACES.values() for entry in entries}  # engines share some
    names = [entry.name for entry in passes.values()]
    assert sorted(set(names)) == sorted(names)
    assert all(entry.summary for entries in PLACES.values() for entry in entries)
