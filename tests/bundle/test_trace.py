"""`--trace` writes what a run did as a file that viewers of Chrome's trace events read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from wanc.runtime.session import Session

from ..conftest import Wanc
from .conftest import RunPy
from .test_runtime import STRUCK

PROMPT = "A red circle moves to the left."
SHORT = ("--prompt", PROMPT, "--frames", "5", "--steps", "2", "--seed", "7")


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a trace, each of which is what the format wants it to be."""
    document = json.loads(path.read_bytes())
    assert (document["displayTimeUnit"], document["otherData"]) == ("ms", {"dropped": 0})
    events = document["traceEvents"]
    for event in events:
        assert isinstance(event["name"], str) and isinstance(event["pid"], int)
        assert event["ph"] in "MXCbe"
        if event["ph"] != "M":
            assert event["ts"] >= 0 and isinstance(event["tid"], int)
    return events


def spans(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == "X"]


def assert_nested(events: list[dict[str, Any]]) -> None:
    """Of one thread each span lies within another or behind it: viewers draw nothing else."""
    for thread in {event["tid"] for event in spans(events)}:
        open_until: list[float] = []
        own = [event for event in spans(events) if event["tid"] == thread]
        for event in sorted(own, key=lambda entry: (entry["ts"], -entry["dur"])):
            while open_until and open_until[-1] <= event["ts"]:
                open_until.pop()
            end = event["ts"] + event["dur"]
            assert not open_until or end <= open_until[-1] + 0.01
            open_until.append(end)


def test_a_run_is_traced(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    video, plain, trace = tmp_path / "out.mp4", tmp_path / "plain.mp4", tmp_path / "out.json"
    finished = run_py(tiny_bundle, *SHORT, "-o", video, "--trace", trace, "--json")
    assert (finished.code, finished.err) == (0, "")
    assert run_py(tiny_bundle, *SHORT, "-o", plain).code == 0
    assert video.read_bytes() == plain.read_bytes(), "who is watched does nothing else"
    report, events = json.loads(finished.out), read(trace)
    assert_nested(events)

    phases = {event["cat"]: event for event in spans(events)}
    assert {"verify", "text", "denoise", "decode", "video", "load", "execute"} <= phases.keys()
    for phase in ("verify", "text", "denoise"):
        assert phases[phase]["dur"] / 1e6 == pytest.approx(report["seconds"][phase], rel=0.2, abs=0.01)
    executed = Counter(event["name"] for event in spans(events) if event["cat"] == "execute")
    wanted = {
        f"execute {name.removesuffix('.executions')}": number
        for name, number in report["counters"].items()
        if name.endswith(".executions")
    }
    assert executed == {name: number for name, number in wanted.items() if number}

    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {event["tid"] for event in spans(events)} == tracks.keys()
    assert "MainThread" in tracks.values()


def test_memory_and_counters_are_curves(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    trace = tmp_path / "out.json"
    finished = run_py(tiny_bundle, *SHORT, "-o", tmp_path / "out.mp4", "--trace", trace, "--json")
    curves: dict[str, list[dict[str, Any]]] = {}
    for event in read(trace):
        if event["ph"] == "C":
            curves.setdefault(event["name"], []).append(event)
    memory = [event["args"]["value"] for event in curves["wanc_rss_bytes"]]
    assert len(memory) > 5
    assert all(20 * 2**20 < value <= json.loads(finished.out)["peak_rss_bytes"] * 1.05 for value in memory)
    for curve in curves.values():
        assert all(earlier["ts"] <= later["ts"] for earlier, later in pairwise(curve))
    executions = [event["args"]["value"] for event in curves["wanc_graph_executions_total vae_decoder steady"]]
    assert executions == [1]
    assert [event["args"]["value"] for event in curves["wanc_cache_misses_total text"]] == [1, 2]


def test_many_requests_are_seen_side_by_side(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    trace = tmp_path / "out.json"
    (tmp_path / "prompts.txt").write_text("a\nb\nc\n")
    many = ("--prompts", tmp_path / "prompts.txt", *SHORT[2:], "-o", tmp_path / "videos")
    assert run_py(tiny_bundle, *many, "--trace", trace).code == 0
    events = read(trace)
    assert_nested(events)
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    for stage in ("text", "denoise", "decode", "write"):
        own = [event for event in spans(events) if event["cat"] == stage]
        assert {names[event["tid"]] for event in own} == {f"{stage}-0"}
        assert {event["args"]["request"] for event in own} == {"1", "2", "3"}
    # What a lane executes for a request is the request's.
    assert all("request" in event["args"] for event in spans(events) if event["cat"] == "execute")
    waits = Counter((event["ph"], event["id"], event["name"]) for event in events if event["ph"] in "be")
    wanted = [f"wait {stage}" for stage in ("text", "denoise", "decode", "write")]
    assert waits == {(ph, number, name): 1 for ph in "be" for number in "123" for name in wanted}
    queues = {event["name"] for event in events if event["ph"] == "C" and "queue" in event["name"]}
    assert queues == {f"wanc_queue_length {stage}" for stage in ("text", "denoise", "decode", "write")}


def test_wanc_run_and_the_self_test_as_well(tiny_bundle: Path, wanc: Wanc, run_py: RunPy, tmp_path: Path) -> None:
    assert wanc("run", tiny_bundle, *SHORT, "-o", tmp_path / "out.mp4", "--trace", tmp_path / "run.json").code == 0
    assert run_py(tiny_bundle, "--selftest", "--trace", tmp_path / "TEST.JSON").code == 0
    for name in ("run.json", "TEST.JSON"):
        assert any(event["cat"] == "execute" for event in spans(read(tmp_path / name)))


def test_what_failed_is_traced(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(session: Session, inputs: Mapping[str, Any]) -> dict[str, Any]:
        raise MemoryError

    monkeypatch.setattr(Session, "run", failing)
    with pytest.raises(MemoryError):
        run_py(tiny_bundle, *SHORT, "-o", tmp_path / "out.mp4", "--trace", tmp_path / "out.json")
    assert os.listdir(tmp_path) == ["out.json"]
    assert any(event["name"] == "execute text_encoder/encode" for event in spans(read(tmp_path / "out.json")))


def test_a_run_that_is_struck_leaves_no_trace(tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = [tiny_bundle, tmp_path / "out.mp4", int(signal.SIGTERM), *SHORT, "--trace", tmp_path / "out.json"]
    command = [sys.executable, "-c", STRUCK, *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (143, "", "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("-", 2, "error: -: a trace is written into a .json file\nhint: name it trace.json\n"),
        ("out", 2, "error: out: a trace is written into a .json file\nhint: name it out.json\n"),
        ("out.mp4", 2, "error: out.mp4: a trace is written into a .json file\nhint: name it out.mp4.json\n"),
        ("no/t.json", 74, "error: no/t.json: the trace cannot be written\ncaused by: No such file or directory\n"),
        ("is.json", 74, "error: is.json: the trace cannot be written\ncaused by: Is a directory\n"),
    ],
)
def test_where_no_trace_can_be_is_said_before_the_work(
    tiny_bundle: Path,
    run_py: RunPy,
    wanc: Wanc,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unworked: None,
    name: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "is.json").mkdir()
    for finished in (
        run_py(tiny_bundle, *SHORT, "-o", "video.mp4", "--trace", name),
        wanc("run", tiny_bundle, *SHORT, "-o", "video.mp4", "--trace", name),
    ):
        assert (finished.code, finished.out, finished.err) == (code, "", message)
    assert os.listdir(tmp_path) == ["is.json"]


def test_no_trace_is_written_into_the_bundle(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    finished = run_py(tiny_bundle, *SHORT, "-o", tmp_path / "out.mp4", "--trace", tiny_bundle / "trace.json")
    assert finished.code == 2
    assert "the output would lie inside the bundle, which is never written to" in finished.err
    assert os.listdir(tmp_path) == []
