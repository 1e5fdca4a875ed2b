"""Charts: files that are small, well-formed and say what they show without colour."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from wanc.compiler.planner.chart import Chart, bars, chrome_trace, gantt
from wanc.compiler.planner.options import PlanOptions
from wanc.compiler.planner.plan import plan_video
from wanc.compiler.planner.simulate import Event, SimulatedRun

from .clusters import cluster
from .counted import a14b

SVG = "{http://www.w3.org/2000/svg}"
PIPELINE = PlanOptions("throughput", 4, replicas=1, ulysses=1, branches="serial", experts="resident", compare=False)
PLAN = plan_video(a14b(), cluster("a100-80g", 4), PIPELINE)
NAMES = dict(enumerate(device.name for device in PLAN.devices))


def test_a_chart_is_small_and_names_every_device_and_what_it_does() -> None:
    text = gantt(Chart(PLAN.run, NAMES, "Wan2.2 <480p>", "predicted"))
    assert len(text) < 1_000_000
    assert "prefers-color-scheme:dark" in text
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title") == "Wan2.2 <480p>"
    assert "request(s)" in str(root.findtext(f"{SVG}desc"))
    labels = {element.text for element in root.iter(f"{SVG}text")}
    assert set(NAMES.values()) | {"high noise", "low noise", "decode", "text"} <= labels
    assert len({element.get("id") for element in root.iter(f"{SVG}pattern")}) == 5
    drawn = [element for element in root.iter(f"{SVG}rect") if element.get("class") == "bar"]
    assert drawn
    assert all(element.findtext(f"{SVG}title") for element in drawn)


def test_a_trace_has_every_execution() -> None:
    trace = json.loads(chrome_trace(PLAN.run, NAMES))
    named = [one for one in trace["traceEvents"] if one["ph"] == "M"]
    done = [one for one in trace["traceEvents"] if one["ph"] == "X"]
    assert {one["args"]["name"] for one in named} == set(NAMES.values())
    assert len(done) == sum(len(event.devices) for event in PLAN.run.events)
    last = max(one["ts"] + one["dur"] for one in done)
    assert abs(last / 1e6 - max(event.end for event in PLAN.run.events)) < 1e-3


def test_events_that_follow_each_other_closely_are_one_bar() -> None:
    times = [(0, 0.0, 1.0), (0, 1.0, 2.0), (1, 2.0, 3.0), (0, 3.05, 4.0), (0, 5.0, 6.0)]
    run = SimulatedRun(tuple(Event((0,), "decode", request, 0, 0, *span) for request, *span in times), (6.0, 3.0))
    assert [(one.request, one.start, one.end) for one in bars(run, 0, 0.1)] == [
        (0, 0.0, 2.0),
        (1, 2.0, 3.0),
        (0, 3.05, 4.0),
        (0, 5.0, 6.0),
    ]
