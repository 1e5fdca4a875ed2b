"""What `wanc passes` and `wanc build --explain fuse` tell, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

from wanc.compiler.explain import explain_tables
from wanc.compiler.passes import all_passes

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
