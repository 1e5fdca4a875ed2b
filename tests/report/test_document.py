"""The document: one text for equal reports, a schema that says what it is, and a reader that believes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wanc.errors import EXIT_DATA, UserError
from wanc.report.document import EXIT_CODES, Estimate, Media, ReportDocument, read, text
from wanc.report.schema import SHIPPED, json_schema, schema_text
from wanc.runtime.strict_json import MAX_BYTES

from .example import example, nothing
from .schema_check import faults


@pytest.mark.parametrize("report", [example(), nothing()], ids=["rich", "nothing"])
def test_what_is_written_is_read_again(report: ReportDocument, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text(report), "utf-8")
    assert read(path) == report
    assert text(read(path)) == text(report)


def test_equal_reports_are_equal_texts() -> None:
    report = example()
    values = report.model_dump(mode="json")
    turned = ReportDocument.model_validate(dict(reversed(values.items())))
    assert text(turned) == text(report)
    assert text(report).startswith('{\n  "baseline": ') and text(report).endswith("\n}\n")
    assert "绿色" in text(report), "people read it as well"


def test_the_schema_file_is_up_to_date() -> None:
    assert SHIPPED.read_text("utf-8") == schema_text(), "write it again: python -m wanc.report.schema"


@pytest.mark.parametrize("report", [example(), nothing()], ids=["rich", "nothing"])
def test_a_report_is_as_the_schema_says(report: ReportDocument) -> None:
    schema = json_schema()
    assert faults(json.loads(text(report)), schema, schema) == []


def test_the_schema_refuses_what_is_no_report() -> None:
    schema = json_schema()
    values = json.loads(text(example()))
    values["verdict"]["outcome"] = "fine"
    values["more"] = 1
    del values["title"]
    found = faults(values, schema, schema)
    assert {fault.split(" ")[0] for fault in found} == {"$.title", "$.verdict.outcome", "$.more"}


def test_the_schema_describes_what_needs_words() -> None:
    definitions = json_schema()["$defs"]
    assert "bootstrap" in definitions["Estimate"]["description"]
    assert definitions["GateResult"]["properties"]["bound"]["description"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_none(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Estimate(mean=value, low=0, high=1, count=1)


@pytest.mark.parametrize("path", ["../a.mp4", "/a.mp4", "a/../b.mp4", "a//b.mp4", ".a.mp4", "", "media/\na.mp4"])
def test_media_lie_beside_the_document(path: str) -> None:
    with pytest.raises(ValidationError):
        Media(video=path, strip="media/a.png")


def with_value(change: Callable[[dict[str, Any]], object]) -> bytes:
    values = json.loads(text(example()))
    change(values)
    return json.dumps(values).encode()


FAULTS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "not JSON"),
    "no object": (b"[]", "must be an object"),
    "NaN": (b'{"format": NaN}', "NaN is not JSON"),
    "twice": (b'{"format": 1, "format": 2}', "duplicate key"),
    "no report": (b"{}", "its format is None, and this wanc reads wanc.report/1.0"),
    "later": (b'{"format": "wanc.report/2.0"}', "its format is 'wanc.report/2.0'"),
    "missing": (with_value(lambda values: values.pop("title")), "title: Field required"),
    "unknown": (with_value(lambda values: values.update(more=1)), "more: Extra inputs are not permitted"),
    "another type": (
        with_value(lambda values: values["machine"].update(cores="2")),
        r"machine\.cores: Input should be a valid integer",
    ),
    "several": (with_value(lambda values: values.update(title=1, notes=2)), "title: .*, and 1 more faults"),
    "a place elsewhere": (
        with_value(lambda values: values["bundles"][0]["media"].append({"video": "../x.mp4", "strip": "a.png"})),
        r"bundles\.0\.media\.0\.video: String should match",
    ),
    "large": (b" " * (MAX_BYTES + 1), "bytes of JSON, more than the"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_report_is_refused(fault: str, tmp_path: Path) -> None:
    content, message = FAULTS[fault]
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        read(path)
    assert refused.value.where is not None and refused.value.where.startswith(str(path))
    assert refused.value.exit_code == EXIT_DATA


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "report.json")
    with pytest.raises(UserError, match="not a regular file"):
        read(tmp_path)


def test_every_outcome_has_an_exit_code_of_its_own() -> None:
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert EXIT_CODES["pass"] == 0 and min(EXIT_CODES.values()) == 0
