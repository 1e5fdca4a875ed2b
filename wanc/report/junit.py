"""The gates as JUnit's XML, which every CI shows: a test case for each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal
from xml.etree import ElementTree

from wanc.recipe.gates import EXTERNAL, MEAN
from wanc.report.document import GateResult, Outcome, ReportDocument
from wanc.report.wording import OUTCOMES, gate_bound, gate_value, quantity

Element = Literal["failure", "error", "skipped"]
ELEMENTS: Mapping[Outcome, Element | None] = {
    "pass": None,
    "regression": "failure",
    "needs-calibration": "skipped",
    "not-comparable": "skipped",
    "infrastructure-error": "error",
}
# XML 1.0 can say none of these, not even escaped.
UNSPEAKABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: ReportDocument) -> bytes:
    """The XML file. A verdict that no gate accounts for is a test case as well, so that none is lost."""
    suite = ElementTree.Element("testsuite", name=_speakable(report.title))
    outcomes: list[Outcome] = [gate.outcome for gate in report.gates]
    verdict = report.verdict
    if verdict.outcome not in outcomes:
        outcomes.append(verdict.outcome)
        _add_case(suite, "report", "verdict", verdict.outcome, verdict.summary, verdict.summary)
    _add_properties(suite, report)
    for gate in report.gates:
        _add_case(suite, gate.bundle, gate.name, gate.outcome, gate.reason, _told(gate))
    counts = Counter(ELEMENTS[outcome] for outcome in outcomes)
    totals = {"failures": counts["failure"], "errors": counts["error"], "skipped": counts["skipped"]}
    root = ElementTree.Element("testsuites", name="wanc report")
    for element in (root, suite):
        element.attrib |= {name: str(count) for name, count in {"tests": len(outcomes), **totals}.items()}
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "utf-8", xml_declaration=True) + b"\n"


def _add_case(suite: ElementTree.Element, bundle: str, name: str, outcome: Outcome, reason: str, told: str) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_speakable(bundle), name=_speakable(name), time="0")
    if element := ELEMENTS[outcome]:
        message = _speakable(f"{OUTCOMES[outcome].word}: {reason}")
        ElementTree.SubElement(case, element, type=outcome, message=message).text = _speakable(told)
    ElementTree.SubElement(case, "system-out").text = _speakable(told)


def _add_properties(suite: ElementTree.Element, report: ReportDocument) -> None:
    """What scorers outside of wanc have said, asked for by a gate or not; JUnit has such in front of the cases."""
    told: dict[str, str] = {}
    for entry in report.bundles:
        if scores := entry.external:
            named = {f"{EXTERNAL}{name}": quantity(value) for name, value in scores.dimensions.items()}
            named[f"{EXTERNAL}{MEAN}"] = quantity(scores.mean_percent, "percent")
            told |= {f"{entry.name}: {name}": value for name, value in named.items()}
    if told:
        properties = ElementTree.Element("properties")
        for name, value in sorted(told.items()):
            ElementTree.SubElement(properties, "property", name=_speakable(name), value=_speakable(value))
        suite.insert(0, properties)


def _told(gate: GateResult) -> str:
    return f"demand {gate.demand}; value {gate_value(gate)}; bound {gate_bound(gate)}"


def _speakable(text: str) -> str:
    return UNSPEAKABLE.sub("\ufffd", text)
