"""What HTML, Markdown, JUnit and in-toto say of one report: the same, whatever its texts hold."""

from __future__ import annotations

import json
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.report import write
from wanc.report.document import Cause, Clip, Outcome, ReportDocument, Verdict, text
from wanc.report.in_toto import statement
from wanc.report.junit import junit
from wanc.report.markdown import markdown
from wanc.report.page.page import page
from wanc.report.values import multiple
from wanc.report.wording import OUTCOMES, better, label, number, quantity
from wanc.report.write import require_report, write_report

from .example import HOSTILE, NEW, PROMPTS, example, nothing, write_example_media
from .parsed import Tables, numbers, parse_markdown, parse_page

NOWHERE = Path("/nowhere")
RICH = example()
FILES = ["report.json", "report.md", "report.junit.xml", "test-result.intoto.json", "index.html"]
GATES, QUALITY, SPEED, OUTSIDE = "5 of 9 gates passed", "Quality against the reference", "Speed", "Scores from outside"
WORST = f"Worst prompts of {NEW}"


@pytest.fixture(scope="module", autouse=True)
def small_plotly() -> Generator[None]:
    """The library itself is of no interest here, and takes a parser a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plotly.offline.get_plotlyjs", lambda: "// plotly's script")
        yield


@pytest.fixture(scope="module")
def html() -> Tables:
    return parse_page(page(RICH, NOWHERE)).tables


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return json.loads(text(RICH))


def test_page_and_markdown_have_the_same_tables(html: Tables) -> None:
    written = parse_markdown(markdown(RICH))
    assert written.keys() == {GATES, QUALITY, "Chunk by chunk", SPEED, OUTSIDE, WORST}
    for name, rows in written.items():
        assert html[name] == rows, name


def test_gates_hold_the_documents_numbers(html: Tables, values: dict[str, Any]) -> None:
    cases = ElementTree.fromstring(junit(RICH)).iter("testcase")
    told = {case.get("name"): case.findtext("system-out") or "" for case in cases}
    rows = {row[1].split("\n")[0]: row for row in html[GATES][1:]}
    assert rows.keys() == told.keys() == {gate["name"] for gate in values["gates"]}
    for gate in values["gates"]:
        row = rows[gate["name"]]
        assert row[2:4] == [gate["bundle"], gate["demand"]]
        assert row[6] == gate["reason"]
        assert told[gate["name"]] == f"demand {gate['demand']}; value {row[4]}; bound {row[5]}"
        for shown, value in ((row[4], gate["value"]), (row[5], gate["bound"])):
            assert numbers(shown) == ([] if value is None else [pytest.approx(value, rel=6e-3)])


def test_quality_holds_the_documents_numbers(html: Tables, values: dict[str, Any]) -> None:
    rows = {row[0].split("\n")[0]: row[1:] for row in html[QUALITY][1:]}
    for cell, bundle in enumerate(values["bundles"]):
        assert len(rows) == len(bundle["quality"]["summary"])
        for metric, estimate in bundle["quality"]["summary"].items():
            shown = numbers(rows[label(metric)][cell].split("\n")[0])
            assert shown == pytest.approx([estimate["mean"], estimate["low"], estimate["high"]], rel=6e-3)


def test_speed_holds_the_documents_numbers(html: Tables, values: dict[str, Any]) -> None:
    rows = {row[0]: row[1:] for row in html[SPEED][1:]}
    for cell, bundle in enumerate(values["bundles"]):
        ratios = {one["phase"]: one for one in bundle["ratios"]}
        for phase, times in bundle["speed"]["phases"].items():
            first, _, below = rows[label(phase)][cell].partition("\n")
            assert numbers(first) == pytest.approx([times["median"], times["low"], times["high"]], rel=6e-3)
            expected = [ratios[phase][name] for name in ("ratio", "low", "high")] if phase in ratios else []
            assert numbers(below) == pytest.approx(expected, rel=6e-3)
        assert numbers(rows["peak memory"][cell]) == [pytest.approx(bundle["speed"]["peak_rss_bytes"], rel=6e-3)]


def test_outside_scores_hold_the_documents_numbers(html: Tables, values: dict[str, Any]) -> None:
    """In the page, which Markdown's tables are equal to, and in JUnit."""
    scores = values["bundles"][0]["external"]
    rows = {row[0]: numbers(row[1]) for row in html[OUTSIDE][1:]}
    expected = {**scores["dimensions"], "mean": scores["mean_percent"]}
    assert rows == {name: [pytest.approx(value, rel=1e-4)] for name, value in expected.items()}
    told = {one.get("name"): one.get("value") or "" for one in ElementTree.fromstring(junit(RICH)).iter("property")}
    assert {name: numbers(value) for name, value in told.items()} == {
        f"{NEW}: external.{name}": [pytest.approx(value, rel=1e-4)] for name, value in expected.items()
    }
    for whole in (markdown(RICH), page(RICH, NOWHERE)):
        assert scores["source"] in whole.replace("\\", "") and scores["sha256"] in whole


def test_agreement_with_prompts_is_in_all_writers(html: Tables, values: dict[str, Any]) -> None:
    """In the page, which Markdown's tables are equal to, with the reference's own, and in JUnit."""
    rows = {row[0].split("\n")[0]: row for row in html[QUALITY][1:]}
    head, new, *_, floor = rows["prompt agreement"]
    assert head == "prompt agreement\nhigher is better; the reference has 91.7% [83.3%, 100.0%]"
    assert (new, floor) == ("66.7% [66.7%, 66.7%]", "100.0%")
    place = html[WORST][0].index("prompt agreement")
    assert {row[0]: row[place] for row in html[WORST][1:]} == {"0": "66.7%", "1": "not measured"}
    assert ["detector", values["reference"]["detector"]] in html["Reference"]
    told = {
        case.get("name"): case.findtext("system-out") for case in ElementTree.fromstring(junit(RICH)).iter("testcase")
    }
    assert told["prompt_agreement"] == "demand >= 0.6; value 66.7%; bound 60.0%"


def test_worst_prompts_are_told_by_their_distance(html: Tables, values: dict[str, Any]) -> None:
    videos = values["bundles"][0]["quality"]["videos"]
    header, *rows = html[WORST]
    assert [[row[0], row[-1]] for row in rows] == [["1", PROMPTS[1]], ["0", PROMPTS[0]]], "the second is further"
    for clip, *cells in rows:
        for metric, value in videos[int(clip)].items():
            assert numbers(cells[header[1:].index(label(metric))]) == [pytest.approx(value, rel=6e-3)]


def test_of_many_prompts_a_comment_has_the_worst() -> None:
    new, *others = RICH.bundles
    assert new.quality
    videos = [{"psnr_db": float(30 + (7 * clip) % 20)} for clip in range(20)]
    new = new.model_copy(update={"quality": new.quality.model_copy(update={"videos": videos})})
    many = RICH.model_copy(update={"bundles": [new, *others], "clips": [Clip(prompt="p", seed=0)] * 20})
    shown = [numbers(row[1])[0] for row in parse_markdown(markdown(many))[WORST][1:]]
    assert shown == [30.0 + place for place in range(10)]
    assert len(parse_page(page(many, NOWHERE)).tables[WORST]) == 1 + 20


def test_what_is_nearly_one_is_told_from_one() -> None:
    assert number(0.999966) == "0.999966" and number(0.9999999421) == "0.999999942" and number(1.0) == "1"
    assert number(0.99995) == "0.99995"
    assert [number(value) for value in (0.0, -0.5, 1.23456e-7, 12345.6, 38.214)] == [
        "0",
        "-0.5",
        "1.235e-07",
        "12346",
        "38.21",
    ]


def test_quantities_have_their_units() -> None:
    assert quantity(1610612736, "bytes") == "1.5 GiB" and quantity(12, "bytes") == "12 B"
    assert quantity(0.973, "share") == "97.3%" and quantity(0.6971, "×") == "0.697×"
    assert quantity(None, "dB") == "not measured" and quantity(30.0, "dB") == "30 dB"
    assert (better("velocity_error"), better("psnr_db"), better("colour")) == ("lower", "higher", None)
    assert (label("prompt_agreement"), better("prompt_agreement")) == ("prompt agreement", "higher")


def test_how_many_floors_it_is() -> None:
    assert multiple("velocity_error", 6e-3, 2e-3) == pytest.approx(3)
    assert multiple("psnr_db", 40, 60) == pytest.approx(10)
    assert multiple("ms_ssim", 0.97, 0.99) == pytest.approx(3)
    assert multiple("cosine", 0.9, 1.0) is None and multiple("velocity_error", 1, 0) is None
    assert multiple("colour", 1, 2) is multiple("prompt_agreement", 0.8, 0.9) is None


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_is_told_in_words(outcome: Outcome) -> None:
    report = RICH.model_copy(update={"verdict": Verdict(outcome=outcome, summary="One sentence.")})
    words = OUTCOMES[outcome]
    assert f"{words.icon} {words.headline}" in parse_page(page(report, NOWHERE)).text.replace("  ", " ")
    assert f"**{words.icon} {words.headline}.** One sentence." in markdown(report)
    assert json.loads(statement(report))["predicate"]["result"] == {"pass": "PASSED", "regression": "FAILED"}.get(
        outcome, "FAILED" if outcome == "infrastructure-error" else "WARNED"
    )


def test_junit_tells_failures_from_what_could_not_be_judged() -> None:
    suite = ElementTree.fromstring(junit(RICH))[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["9", "2", "0", "2"]
    found = {case.get("name"): [child.tag for child in case][:-1] for case in suite}
    assert found["total"] == [] and found["batch"] == ["failure"] and found["ms_ssim"] == ["skipped"]
    message = suite.find("testcase[@name='velocity_error']/failure")
    assert message is not None and message.get("message") == "regression: 4.5 floors of bf16"


@pytest.mark.parametrize(
    ("outcome", "element"), [("infrastructure-error", "error"), ("not-comparable", "skipped"), ("pass", None)]
)
def test_a_verdict_without_a_gate_is_no_green_nothing(outcome: Outcome, element: str | None) -> None:
    (case,) = ElementTree.fromstring(junit(nothing(outcome))).iter("testcase")
    assert [child.tag for child in case] == ([element] if element else []) + ["system-out"]


def test_the_statement_names_the_bundle_and_its_gates() -> None:
    found = json.loads(statement(RICH))
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    digest = RICH.bundles[0].facts.id.removeprefix("sha256:")
    assert found["subject"] == [{"name": NEW, "digest": {"sha256": digest}}]
    predicate = found["predicate"]
    assert predicate["failedTests"] == [f"{NEW}: velocity_error", f"{NEW}: batch"]
    assert predicate["warnedTests"] == [f"{NEW}: ms_ssim", f"{NEW}: peak_rss"]
    assert len(predicate["passedTests"]) == 5
    assert [one["name"] for one in predicate["configuration"]] == ["report.json", "reference", "baseline tiny-wan-bf16"]
    assert all(len(one["digest"]["sha256"]) == 64 for one in predicate["configuration"])


# texts of others


def hostile(name: str, prompt: str) -> ReportDocument:
    """The rich report without its largest lists, with these texts wherever a text can stand."""
    new, *others = RICH.bundles
    assert new.quality
    layers = [layer.model_copy(update={"name": name, "reason": prompt}) for layer in new.quality.worst_layers]
    quality = new.quality.model_copy(update={"blocks": new.quality.blocks[:2], "worst_layers": layers})
    new = new.model_copy(update={"name": name, "recipe": prompt, "failure": prompt, "quality": quality})
    return RICH.model_copy(
        update={
            "title": name,
            "clips": [Clip(prompt=prompt, seed=1), Clip(prompt=name, seed=2)],
            "bundles": [new, *others],
            "gates": [gate.model_copy(update={"bundle": name, "reason": prompt}) for gate in RICH.gates],
            "notes": [prompt],
            "verdict": Verdict(outcome="pass", summary=prompt, cause=Cause(kind="layer", name=name, detail=prompt)),
        }
    )


@pytest.fixture(scope="module")
def tags() -> set[str]:
    return set(parse_page(page(RICH, NOWHERE)).tags)


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60) | st.sampled_from(
    [
        HOSTILE,
        *PROMPTS,
        "<!--<script>",
        "]]>",
        "$style",
        "a|b\n| --- |",
        "&lt;",
        "var(--text)",
        "\x00\x0b\x1b[31m",
        "\u2028",
    ]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=TEXTS, prompt=TEXTS)
def test_no_text_becomes_anything_else(tags: set[str], name: str, prompt: str) -> None:
    report = hostile(name, prompt)
    parsed = parse_page(page(report, NOWHERE))
    assert set(parsed.tags) <= tags and len(parsed.scripts) == 4
    assert prompt in parsed.text and name in parsed.text
    assert not [one for one in parsed.attributes if one[1].startswith("on")]
    assert all((value or "").startswith("#") for _, attribute, value in parsed.attributes if attribute == "href")
    json.loads(parsed.scripts[0]), json.loads(parsed.scripts[1])
    ElementTree.fromstring(junit(report))
    assert json.loads(statement(report))["subject"][0]["name"] == name
    rows = parse_markdown(markdown(report))[GATES]
    assert len(rows) == len(report.gates) + 1 and {len(row) for row in rows} == {7}
    assert "\n".join(row[2] for row in rows[1:]).split() == name.split() * len(report.gates)
    assert ReportDocument.model_validate_json(text(report)) == report


def test_markdown_calls_nobody_and_shows_no_html() -> None:
    written = markdown(hostile("name", HOSTILE))
    assert "<script" not in written.replace("\\<", "") and "@team" not in written


# files


def test_the_page_is_written_last_and_all_else_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = write_example_media(tmp_path / "from")
    report, folder = example(media), tmp_path / "a" / "b"
    order: list[str] = []
    original = write.write_whole
    monkeypatch.setattr(
        write, "write_whole", lambda path, data, what: (order.append(path.name), original(path, data, what))
    )
    written = write_report(report, folder, tmp_path / "from")
    assert order[-5:] == FILES and written[-1] == folder / "index.html"
    assert sorted(path.name for path in (folder / "media").iterdir()) == sorted(order[:-5])
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in written)
    assert "data:video/mp4;base64," in (folder / "index.html").read_text("utf-8")
    first = {path: path.read_bytes() for path in written}
    assert write_report(report, folder, folder) == written[-5:]
    assert {path: path.read_bytes() for path in written} == first


def test_media_that_lead_elsewhere_are_not_read(tmp_path: Path) -> None:
    media = write_example_media(tmp_path)
    secret = tmp_path.parent / "secret.png"
    secret.write_bytes(b"secret")
    strip = tmp_path / media[NEW][0].strip
    strip.unlink()
    strip.symlink_to(secret)
    shown = page(example(media), tmp_path)
    assert shown.count("data:image/png") == 7
    assert "c2VjcmV0" not in shown


def test_a_folder_that_cannot_be_written_to_is_told_before(tmp_path: Path) -> None:
    require_report(tmp_path / "not" / "there")
    (tmp_path / "index.html").mkdir()
    with pytest.raises(UserError, match="the report cannot be written"):
        require_report(tmp_path)


def test_without_plotly_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanc.report.page.page.find_spec", lambda name: None)
    with pytest.raises(UserError, match="plotly") as refused:
        require_report(tmp_path)
    assert refused.value.exit_code == EXIT_UNAVAILABLE and "wanc[report]" in str(refused.value.hint)


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    write_report(nothing(), tmp_path, tmp_path)
    shown = parse_page((tmp_path / "index.html").read_text("utf-8"))
    assert "Not measured: Gates, Speed against quality, Bundles" in shown.text
    assert shown.tables.keys() == {"Machine"}
    assert "could not be computed" in (tmp_path / "report.md").read_text("utf-8")
