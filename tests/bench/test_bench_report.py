"""What people and programs get of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanc.bench.case import Case
from wanc.bench.contest import Result, bench, contest
from wanc.bench.report import markdown, table, write_report
from wanc.errors import UserError

from ..conftest import Wanc

MACHINE = {"processor": "a processor", "cores": 2, "features": ["avx512f"], "tools": {"torch": "2.13.0"}}


def report(*results: Result) -> dict[str, Any]:
    contenders = [result.as_json() for result in results]
    return {"case": Case().as_json(), "machine": MACHINE, "threads": 2, "only": "float", "contenders": contenders}


SLOW, FAST = Result("PyTorch eager fp32", (4.0, 5.0, 9.0), 0.0), Result("wanc openvino", (2.0, 1.0, 2.5), 1e-6, 0.25)


def test_contenders_are_listed_by_their_median() -> None:
    shown = table(report(SLOW, FAST))
    assert [row[:2] for row in shown.rows] == [["wanc openvino", "2.000"], ["PyTorch eager fp32", "5.000"]]
    assert shown.rows[0][2:5] == ["1.000–2.500", "2.50", "1.0e-06"]


def test_a_page_tells_machine_rounds_and_picture() -> None:
    page = markdown(report(SLOW, FAST), "step.svg")
    assert "| wanc openvino | 2.000 | 1.000–2.500 | 2.50 | 1.0e-06 | 0.25 |" in page
    assert (
        "3 rounds" in page
        and "a processor" in page
        and "torch 2.13.0" in page
        and "![Time against error](step.svg)" in page
    )


def test_equal_reports_are_equal_files(tmp_path: Path) -> None:
    paths = [write_report(report(SLOW, FAST), tmp_path / name) for name in ("one", "two")]
    assert [path.name for path in paths[0]] == [f"step-1536x4-2240.{suffix}" for suffix in ("json", "md", "svg")]
    assert [one.read_bytes() for one in paths[0]] == [two.read_bytes() for two in paths[1]]
    assert json.loads(paths[0][0].read_bytes())["contenders"][1]["median"] == 2.0


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def step(name: str) -> np.ndarray[Any, Any]:
        calls.append(name)
        return np.array([len(calls)])

    measured = contest({name: lambda name=name: step(name) for name in "ab"}, 2, progress=False)
    assert calls == ["a", "b"] * 3
    assert [len(seconds) for seconds, _ in measured.values()] == [2, 2]
    assert measured["b"][1] == [6]


def test_int8_is_not_built_yet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only int8 is not built yet"):
        bench(Case(), only="int8", rounds=1, work=tmp_path, progress=False)


def test_a_whole_video_needs_a_checkpoint(wanc: Wanc, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("wanc: 1\nname: block\nmodel: {onnx: block.onnx}\n")
    done = wanc("bench", "--e2e", recipe, "-o", tmp_path / "out")
    assert done.code == 2
    assert "the recipe needs a checkpoint" in done.err


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns of itself
def test_every_contender_computes_the_same(tmp_path: Path) -> None:
    """All of them, on one block of two heads: errors are those of their number formats."""
    found = bench(Case.parse("width=256,blocks=1,latent=2x8x8"), only="float", rounds=1, work=tmp_path, progress=False)
    errors = {entry["name"]: entry["rel_error"] for entry in found["contenders"]}
    assert len(errors) == 12 and sum(name.startswith("wanc ") for name in errors) == 5
    for name, error in errors.items():
        # float32 sums in another order; bfloat16 has 8 bits, which a block lets grow a little.
        assert error <= (5e-2 if "bf16" in name else 5e-6), name
    assert not list(tmp_path.iterdir()), "everything that was made on the way is gone"
