"""The manifest's list of engine files: read as it stands, or refused by name."""

from __future__ import annotations

from typing import Any, cast

import pytest

from wanc.runtime.engine_file import EngineFile, read_engine_files
from wanc.runtime.errors import BundleError
from wanc.runtime.strict_json import Fields

ENTRY = EngineFile(
    component="denoiser_high",
    graph="step",
    segment=1,
    engine="onnxruntime",
    target="cpu",
    profile=None,
    device="cpu",
    file="engines/denoiser_high/step.s1.cpu.onnx",
    inputs=("x", "block 3:0"),
    outputs=("velocity",),
)


def read(*entries: dict[str, Any]) -> tuple[EngineFile, ...]:
    fields = [Fields(cast("Any", entry), "manifest.json", f"engines[{index}]") for index, entry in enumerate(entries)]
    return read_engine_files(fields, {ENTRY.file})


def test_an_entry_is_read_as_it_was_written() -> None:
    other = {**ENTRY.as_json(), "profile": "480p"}
    assert read(ENTRY.as_json(), other) == (ENTRY, EngineFile(**{**vars(ENTRY), "profile": "480p"}))


def test_devices_that_execute_a_file_together_are_read_as_they_were_written() -> None:
    ranked = EngineFile(**{**vars(ENTRY), "ranks": ("cpu", "gpu1")})
    assert ranked.as_json()["ranks"] == ["cpu", "gpu1"] and "ranks" not in ENTRY.as_json()
    assert read(ranked.as_json()) == (ranked,)
    assert str(ranked) == "onnxruntime on cpu (cpu, gpu1)"


@pytest.mark.parametrize("name", ENTRY.as_json())
def test_every_field_has_to_be_there(name: str) -> None:
    entry = ENTRY.as_json()
    del entry[name]
    with pytest.raises(BundleError, match=rf"engines\[0\]\.{name} is missing"):
        read(entry)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("segment", -1, "must be at least 0, not -1"),
        ("segment", "0", "must be an integer, not a string"),
        ("segment", True, "must be an integer, not a boolean"),
        ("engine", None, "must be a string, not null"),
        ("profile", 480, "must be a string, not a number"),
        ("inputs", ["x", "x"], "names one value twice"),
        ("outputs", "velocity", "must be a list, not a string"),
        ("file", "engines/denoiser_high/other.onnx", "is not a file of the bundle"),
        ("file", "../step.onnx", "is not a file of the bundle"),
        ("ranks", ["cpu"], "must be several devices, the first of which is `device`"),
        ("ranks", ["gpu1", "cpu"], "must be several devices, the first of which is `device`"),
        ("ranks", ["cpu", "cpu"], "names one value twice"),
        ("ranks", "cpu", "must be a list, not a string"),
    ],
)
def test_what_makes_no_sense_is_refused(field: str, value: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        read({**ENTRY.as_json(), field: value})
    assert f"engines[0].{field}" in caught.value.message


def test_a_segment_is_listed_once_for_each_engine_and_target() -> None:
    assert len(read(ENTRY.as_json(), {**ENTRY.as_json(), "engine": "openvino"})) == 2
    with pytest.raises(BundleError, match="repeats segment 1 of denoiser_high/step"):
        read(ENTRY.as_json(), {**ENTRY.as_json(), "inputs": []})
