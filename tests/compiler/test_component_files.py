"""What a stage of one component is given: all that is about it, and nothing by which another's change would show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wanc.compiler.program.component_files import component_inputs
from wanc.compiler.program.program import Placement, Program, ProgramComponent, ProgramGraph, Segment
from wanc.compiler.stages.stage import Tree
from wanc.models.graph import Input, Output
from wanc.models.weights import Weight

EXPERT, DECODER = "denoiser_high", "vae_decoder"
WEIGHT = Weight("expert.safetensors", 0, 8, "FLOAT", (2,))


def component(name: str, **weights: Weight) -> ProgramComponent:
    graph = ProgramGraph(f"{name}/g.onnx", (Input("x", (2,), "step", "request"),), (Output("y", (2,)),), {})
    return ProgramComponent({"g": graph}, weights, ("blocks.0",))


PROGRAM = Program(
    "text-to-video",
    None,
    {
        EXPERT: component(EXPERT, a=WEIGHT, own=replace(WEIGHT, file="program/expert.bin")),
        DECODER: component(DECODER, b=replace(WEIGHT, file="decoder.safetensors")),
    },
    None,
    Placement(("cpu",), (Segment(EXPERT, 0, 0, 1, "cpu"), Segment(DECODER, 0, 0, 1, "cpu"))),
)
FILES = ("denoiser_high/g.onnx", "vae_decoder/g.onnx", "probes/denoiser_high.bin", "quantization/denoiser_high.json")
EXPORTED, SOURCE = ("expert.bin", "other.bin"), ("expert.safetensors", "decoder.safetensors", "tokenizer.json")


def tree(names: tuple[str, ...], changed: str = "") -> Tree:
    return Tree(
        {name: "new" if name == changed else "old" for name in names}, lambda: {name: Path(name) for name in names}
    )


def digests(program: Program, folder: Path, changed: str = "") -> dict[str, dict[str, str]]:
    folder.mkdir(exist_ok=True)
    program.write(folder)
    described = Tree({"program.json": "whole"}, lambda: {"program.json": folder / "program.json"})
    inputs = component_inputs(
        (EXPERT,), described.joined(tree(FILES, changed)), tree(EXPORTED, changed), tree(SOURCE, changed)
    )
    return {name: dict(found.digests) for name, found in inputs.items()}


def test_what_is_given(tmp_path: Path) -> None:
    found = digests(PROGRAM, tmp_path)
    assert found["program"].keys() == {"program.json", FILES[0], FILES[2], FILES[3]}
    assert found["exported"].keys() == {"expert.bin"}
    assert found["source"].keys() == {"expert.safetensors"}


@pytest.mark.parametrize("changed", ["vae_decoder/g.onnx", "other.bin", "decoder.safetensors", "tokenizer.json"])
def test_another_component_s_files_do_not_show(changed: str, tmp_path: Path) -> None:
    assert digests(PROGRAM, tmp_path, changed) == digests(PROGRAM, tmp_path)


@pytest.mark.parametrize(
    "changed", ["denoiser_high/g.onnx", "probes/denoiser_high.bin", "expert.bin", "expert.safetensors"]
)
def test_its_own_files_do(changed: str, tmp_path: Path) -> None:
    assert digests(PROGRAM, tmp_path, changed) != digests(PROGRAM, tmp_path)


def test_of_the_program_only_what_is_about_it_shows(tmp_path: Path) -> None:
    before = digests(PROGRAM, tmp_path)
    other = replace(PROGRAM.components[DECODER], blocks=("up.0", "up.1"))
    assert digests(replace(PROGRAM, components={**PROGRAM.components, DECODER: other}), tmp_path) == before
    mine = replace(PROGRAM.components[EXPERT], blocks=("blocks.0", "blocks.1"))
    assert digests(replace(PROGRAM, components={**PROGRAM.components, EXPERT: mine}), tmp_path) != before
