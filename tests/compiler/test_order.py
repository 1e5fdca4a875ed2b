"""Engines whose executions could wait for each other are not built."""

from __future__ import annotations

import pytest

from wanc.compiler.bundle.assemble import check_order
from wanc.compiler.program.program import ProgramComponent, ProgramGraph
from wanc.errors import BundleError
from wanc.runtime.engine_file import EngineFile, RankExchange
from wanc.runtime.interface import Input, Output

RANKS = ("cpu.0", "cpu.1")


def file_of(segment: int, device: str, inputs: str, outputs: str, *exchanges: RankExchange) -> EngineFile:
    ranks = RANKS if exchanges else ()
    names = tuple(inputs.split()), tuple(outputs.split())
    return EngineFile(
        "denoiser", "step", segment, "onnxruntime", "cpu", None, device, f"{segment}", *names,
        ranks=ranks, exchanges=exchanges,
    )  # fmt: skip


def components() -> dict[str, ProgramComponent]:
    graph = ProgramGraph("step.onnx", (Input("x", ("n", 4), "step", "request"),), (Output("y", ("n", 4)),), {})
    return {"denoiser": ProgramComponent({"step": graph}, {})}


def test_segments_go_forth_and_back_between_devices() -> None:
    files = [file_of(0, "cpu.0", "x", "h"), file_of(1, "cpu.1", "h", "k"), file_of(2, "cpu.0", "k", "y")]
    check_order(components(), files)


@pytest.mark.parametrize(
    "files",
    [
        [file_of(0, "cpu.0", "x k", "h"), file_of(1, "cpu.1", "h", "k y")],
        [file_of(0, "cpu.0", "x", "h"), file_of(1, "cpu.1", "h z", "y")],
        [file_of(0, "cpu.0", "all", "y", RankExchange("all_gather", "y", "all"))],
    ],
    ids=["in a circle", "for nobody", "for its own exchange"],
)
def test_what_waits_for_what_comes_behind_it_is_refused(files: list[EngineFile]) -> None:
    with pytest.raises(BundleError, match="which nothing before it gives"):
        check_order(components(), files)
