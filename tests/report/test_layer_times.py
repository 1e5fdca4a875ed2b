"""What groups of Linears take, read from engines, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.report.layer_times import group_of, layer_groups, linear_of
from wanc.report.page.details import layer_groups as shown_groups
from wanc.report.reference import ReferenceRecord
from wanc.report.subject import Subject
from wanc.report.teacher_forced import block_errors

from .example import BASELINE, EXPERTS, NEW, example

GROUPS = {
    "attn1.to_q, k, v", "attn1.to_out.0", "attn2.to_q, k, v", "attn2.to_out.0", "ffn.net.0.proj", "ffn.net.2",
    "proj_out",
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "linear"),
    [
        ("blocks.0.attn1.to_q.weight", "blocks.0.attn1.to_q"),
        ("blocks.0.attn1.to_q.weight.codes.T10", "blocks.0.attn1.to_q"),
        ("blocks.0.attn1.to_q.input.scale", "blocks.0.attn1.to_q"),
        ("proj_out.bias", "proj_out"),
        ("blocks.0.weights", None),
        ("weight", None),
        ("latents", None),
    ],
)
def test_a_value_belongs_to_a_linear(value: str, linear: str | None) -> None:
    assert linear_of(value) == linear


@pytest.mark.parametrize(
    ("linear", "group"),
    [
        ("blocks.11.attn1.to_k", "attn1.to_q, k, v"),
        ("blocks.11.attn1.to_qkv", "attn1.to_q, k, v"),
        ("blocks.3.attn1.to_out.0", "attn1.to_out.0"),
        ("transformer.blocks.3.ffn.net.2", "ffn.net.2"),
        ("proj_out", "proj_out"),
    ],
)
def test_the_same_place_of_all_blocks_is_a_group(linear: str, group: str) -> None:
    assert group_of(linear) == group


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_integers_beside_float(engine: str, tiny_recipe: Path, tiny_bundle: Path, record: ReferenceRecord) -> None:
    """Every group of a step is there, of all experts, and of neither more than the step as a whole can take."""
    calibrate = tiny_recipe.parent / "prompts/tiny-wan-calibrate.txt"
    scheme = f"quantize={{scheme: int8, calibrate: {{prompts: {calibrate}, clips: 1}}}}"
    (loaded,) = load(tiny_recipe, [f"name=groups-{engine}", f"engine.kind={engine}", scheme])
    bundle = build(loaded, tiny_bundle.parents[1], progress=False).bundle
    new, before = Subject.open(bundle, "new", threads=1), Subject.open(tiny_bundle, "before", threads=1)
    found = layer_groups(new, before, record)
    for expert in EXPERTS:
        assert {one.group for one in found if one.expert == expert} == GROUPS
    integers = [one for one in found if one.group != "proj_out"]
    assert all(one.scheme.startswith("int8") and one.baseline_scheme == "float" for one in integers)
    assert all(one.seconds > 0 and one.baseline_seconds for one in found)
    # Three projections take longer than one of the same size; the machine may do other things meanwhile.
    seconds = {(one.expert, one.group): one.baseline_seconds or 0 for one in found}
    assert all(seconds[expert, "attn1.to_q, k, v"] > 1.3 * seconds[expert, "attn1.to_out.0"] for expert in EXPERTS)


@pytest.mark.parametrize("change", [{"target": "cuda"}, {"engine": "tensorrt-rtx", "target": "sm89"}])
def test_an_engine_that_tells_nothing_here(
    change: dict[str, str], tiny_bundle: Path, record: ReferenceRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are not for this processor, or not for a library that says what is inside: none of them is opened."""
    whole = Subject.open(tiny_bundle, "whole", threads=1)
    schemes = dict.fromkeys([f"{expert}/blocks.0.ffn.net.2" for expert in EXPERTS], "int8")
    quantized = replace(whole, facts=whole.facts.model_copy(update={"schemes": schemes}))
    assert not np.isnan(block_errors(whole, record, EXPERTS[0])).all()
    engines = whole.pipeline.bundle.engines
    for key, segments in list(engines.items()):
        files = tuple(replace(file, **change) for file in segments.files)
        monkeypatch.setitem(engines, key, replace(segments, files=files))
    assert layer_groups(quantized, whole, record) == []
    assert np.isnan(block_errors(whole, record, EXPERTS[0])).all()


def test_nothing_to_tell_where_nothing_is_quantised(tiny_bundle: Path, record: ReferenceRecord) -> None:
    subject = Subject.open(tiny_bundle, "whole", threads=1)
    assert layer_groups(subject, subject, record) == []


def test_whether_it_paid_is_said() -> None:
    report = example()
    new = next(entry for entry in report.bundles if entry.name == NEW)
    slower = new.groups[0].model_copy(update={"seconds": 2.0, "baseline_seconds": 1.0})
    float_again = new.groups[0].model_copy(update={"scheme": "float"})
    unknown = new.groups[0].model_copy(update={"baseline_seconds": None, "baseline_scheme": None})
    entry = new.model_copy(update={"groups": [new.groups[0], slower, float_again, unknown]})
    rows = [[cell.text for cell in row] for row in shown_groups(report, entry).rows]
    assert [row[-1].split(",")[0] for row in rows] == ["yes", "no", "–", "–"]
    assert rows[1][3:] == ["2000 ms", "1000 ms", "no, 0.5× as fast"]
    assert shown_groups(report, entry).header[4] == f"In {BASELINE}"
    alone = shown_groups(report.model_copy(update={"baseline": None}), entry)
    assert [*alone.header] == ["Expert", "Linears", "Scheme", "Takes"] and {len(row) for row in alone.rows} == {4}
