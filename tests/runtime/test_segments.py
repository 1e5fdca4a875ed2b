"""The segments of a graph make up the graph, or are refused by component, graph, segment and value."""

from __future__ import annotations

import pytest

from wanc.runtime.engine_file import EngineFile
from wanc.runtime.errors import BundleError
from wanc.runtime.interface import Input, Interface, Output, carried
from wanc.runtime.segments import Segments

INTERFACE = Interface(
    (Input("x", ("rows",), "step", "request"), Input("text", ("rows",), "request", "branch")), (Output("y", ("rows",)),)
)


def file(segment: int, inputs: str, outputs: str) -> EngineFile:
    name = f"{segment}.onnx"
    takes, gives = tuple(inputs.split()), tuple(outputs.split())
    return EngineFile("denoiser", "step", segment, "onnxruntime", "cpu", None, "cpu", name, takes, gives)


def test_they_are_put_in_order_and_say_what_they_hand_on() -> None:
    files = [file(2, "k far", "y"), file(0, "x", "h far"), file(1, "h text", "k unused")]
    segments = Segments.of(INTERFACE, files, "manifest.json")
    assert [entry.segment for entry in segments.files] == [0, 1, 2]
    assert (segments.inputs, segments.outputs) == (("x", "text"), ("y",))
    assert [set(names) for names in segments.dropped] == [{"x"}, {"h", "text", "unused"}, {"k", "far"}]


def test_an_output_that_is_also_taken_is_kept_to_the_end() -> None:
    interface = Interface(INTERFACE.inputs, (Output("h", ("rows",)), Output("y", ("rows",))))
    segments = Segments.of(interface, [file(0, "x", "h"), file(1, "h text", "y")], "manifest.json")
    assert [set(names) for names in segments.dropped] == [{"x"}, {"text"}]


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ([file(1, "x text", "y")], "segment 0 is missing"),
        ([file(0, "x", "h"), file(2, "h", "y")], "segment 1 is missing"),
        ([file(0, "x", "h"), file(1, "k", "y")], "segment 1 takes 'k', which nothing before it gives"),
        ([file(0, "x k", "h"), file(1, "h", "k y")], "segment 0 takes 'k', which nothing before it gives"),
        ([file(0, "x", "h"), file(1, "h", "h y")], "segments 0 and 1 both give 'h'"),
        ([file(0, "x", "y"), file(1, "x", "y")], "segments 0 and 1 both give 'y'"),
        ([file(0, "x", "h"), file(1, "h", "k")], "no segment gives the output 'y'"),
        ([file(0, "x text", "z")], "no segment gives the output 'y'"),
        ([file(0, "x", "y")], "its one segment does not take the input 'text'"),
        ([file(0, "x text", "y z")], "its one segment gives 'z', which the graph does not"),
        ([file(2**53, "x text", "y")], "segment 0 is missing"),
        ([file(0, "x", "h"), file(0, "text", "y")], "segment 0 comes twice"),
    ],
)
def test_what_does_not_make_up_the_graph_is_refused(files: list[EngineFile], fault: str) -> None:
    with pytest.raises(BundleError) as caught:
        Segments.of(INTERFACE, files, "manifest.json")
    assert (caught.value.where, caught.value.message) == ("manifest.json", f"denoiser/step: {fault}")


def test_a_state_is_carried_to_the_input_that_it_names() -> None:
    outputs = (Output("frames", (1,)), Output("a", (1,), state="cache_7"), Output("b", (1,), state="cache_0"))
    assert carried(outputs, {"frames": 1, "a": 2, "b": 3}) == {"cache_7": 2, "cache_0": 3}
