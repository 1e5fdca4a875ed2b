"""What `wanc passes` and `wanc build --explain fuse` tell, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

from wanc.compiler.explain import explain_tables
from wanc.compiler.passes.registry import all_passes
from wanc.compiler.program.quant_table import QuantTable, QuantTableEntry

from ..conftest import Wanc
from .builder import Project

REPORT = {
    "components": {
        "denoiser_high": {
            "step": {
                "nodes": {"before": 90, "after": 30},
                "parts": {"time": 4, "step": 26},
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
    assert table.title == "denoiser_high/step: 90 → 30 nodes, cut into time (4), step (26)"
    assert [tuple(row) for row in table.rows] == [
        ("rope", "2 ×", "-40", ""),
        ("norms", "0 ×", "+0", "no match"),
        ("attention", "1 ×", "-20", "2 × too odd (val_7)"),
        ("", "", "", "1 × too even (val_9)"),
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


def test_passes_are_listed_in_their_order(wanc: Wanc) -> None:
    done = wanc("passes", "--json")
    listed = json.loads(done.out)
    assert [entry["name"] for entry in listed] == [entry.name for entry in all_passes()]
    for index, entry in enumerate(listed):
        assert set(entry["after"]) <= {earlier["name"] for earlier in listed[:index]}
    shown = wanc("passes").out
    assert all(entry["name"] in shown and entry["summary"] in shown for entry in listed)
