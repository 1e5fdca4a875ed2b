"""What was measured takes the place of what is assumed: rates of a machine, and memory of engines that were built."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from wanc.compiler.planner.profile import Profile

from ...conftest import Finished, Wanc
from .counted import PROJECT

TINY = str(PROJECT / "recipes" / "tiny-wan.yaml")
MEASURED = Profile("cpu", "a small machine", {"fp32": 1e11, "int8": 5e11})
GPU = ("engine.kind=tensorrt-rtx", "precision.compute=bf16", "partition.devices=[{kind: rtx4090}]")


def plan(wanc: Wanc, *options: object, changes: tuple[str, ...] = ()) -> Finished:
    given = (part for change in changes for part in ("--set", change))
    return wanc("plan", TINY, *given, *options, "--json")


def planned(wanc: Wanc, *options: object, changes: tuple[str, ...] = ()) -> dict[str, Any]:
    finished = plan(wanc, *options, changes=changes)
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


def test_a_profile_says_how_fast_a_machine_is(wanc: Wanc, tmp_path: Path) -> None:
    (tmp_path / "m.profile.json").write_text(MEASURED.text())
    assumed = planned(wanc)
    found = planned(wanc, changes=(f"partition.profiles=[{tmp_path}/m.profile.json]",))
    assert assumed["efficiencies"]["cpu"]["fp32"] == {"value": 0.4, "source": "assumed"}
    assert found["efficiencies"]["cpu"]["fp32"] == {
        "value": pytest.approx(1e11 / 3e12),
        "source": "measured on a small machine",
    }
    assert found["efficiencies"]["cpu"]["bf16"]["source"] == "assumed", "nobody has measured it"
    assert found["video_seconds"] > 3 * assumed["video_seconds"]


def test_a_profile_of_another_kind_changes_nothing(wanc: Wanc, tmp_path: Path) -> None:
    (tmp_path / "m.profile.json").write_text(Profile("h100", "another machine", {"bf16": 4e14}).text())
    found = planned(wanc, changes=(f"partition.profiles=[{tmp_path}/m.profile.json]",))
    assert found["video_seconds"] == planned(wanc)["video_seconds"]


@pytest.mark.parametrize(
    ("content", "said", "hinted"),
    [
        (None, "cannot be read", "did you mean"),
        ("", "is no profile of a device: the document", "ends with .profile.json"),
        ("{}", "is no profile of a device: kind", "ends with .profile.json"),
        (MEASURED.text().replace("int8", "int7"), "is no profile of a device: rates.int7", ".profile.json"),
        (MEASURED.text().replace("profile/1.0", "profile/2.0"), "is no profile of a device: schema", ".profile.json"),
        (MEASURED.text().replace("500000000000.0", "5e14"), "5e\\+14 FLOP/s in int8 were measured", "peaks.int8"),
        (MEASURED.text().replace("500000000000.0", "-1.0"), "-1 FLOP/s in int8 were measured", "peaks.int8"),
        (MEASURED.text().replace("500000000000.0", "NaN"), "nan FLOP/s in int8 were measured", "peaks.int8"),
        (MEASURED.text().replace("int8", "fp8"), "in fp8 were measured on cpu, which has no such units", "peaks.fp8"),
    ],
)
def test_what_is_no_profile_is_told_at_its_line(
    wanc: Wanc, tmp_path: Path, content: str | None, said: str, hinted: str
) -> None:
    (tmp_path / ("n.profile.json" if content is None else "m.profile.json")).write_text(content or "")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"wanc: 1\nextends: {TINY}\npartition:\n  profiles:\n    - m.profile.json\n")
    finished = wanc("plan", recipe)
    assert finished.code == 2
    assert wanc("recipe", "check", recipe).err == finished.err
    error, hint = finished.err.splitlines()[0], finished.err.splitlines()[-1]
    assert error.startswith(f"error: {recipe}:") and hint.startswith("hint: ") and hinted in hint
    assert re.search(said, finished.err)


def test_a_profile_that_is_a_pipe_is_not_waited_for(wanc: Wanc, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.profile.json")
    finished = plan(wanc, changes=(f"partition.profiles=[{tmp_path}/m.profile.json]",))
    assert finished.code == 2 and "is no profile of a device: the document" in finished.err


REPORT = {
    "engine": "tensorrt-rtx",
    "components": {
        "denoiser_high": {"step": {"activation_bytes": 7 * 2**30}, "time": {"activation_bytes": 5}},
        "vae_decoder": {"first": {"activation_bytes": 3 * 2**30}},
    },
}


def test_engines_say_what_they_need(wanc: Wanc, tmp_path: Path) -> None:
    (tmp_path / "engine_report.json").write_text(json.dumps(REPORT))
    found = planned(wanc, "--engines", tmp_path, changes=GPU)["devices"][0]["peak_bytes"]
    counted = planned(wanc, changes=GPU)["devices"][0]["peak_bytes"]
    assert found["denoise_high"] > 7 * 2**30 > counted["denoise_high"]
    assert found["decode"] > 3 * 2**30 > counted["decode"]
    assert found["encode"] == counted["encode"], "the report says nothing of it"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        (json.dumps({"engine": "openvino", "components": {"m": {"main": {"bytes": 1}}}}), "says nothing of memory"),
        (json.dumps({"engine": "x", "components": {"m": {"main": {"activation_bytes": "1"}}}}), "activation_bytes"),
        (json.dumps({"engine": "x", "components": {"m": []}}), "m"),
    ],
)
def test_what_says_nothing_of_memory_is_told(wanc: Wanc, tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "engine_report.json").write_text(content)
    finished = plan(wanc, "--engines", tmp_path, changes=GPU)
    assert finished.code not in (0, 1) and said in finished.err and "Traceback" not in finished.err
