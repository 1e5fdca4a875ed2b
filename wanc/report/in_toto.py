"""The verdict as an in-toto statement about the new bundle, for policies that ask whether it was tested.

https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from wanc.report.document import Outcome, ReportDocument, text

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
RESULTS: Mapping[Outcome, str] = {
    "pass": "PASSED",
    "regression": "FAILED",
    "needs-calibration": "WARNED",
    "not-comparable": "WARNED",
    "infrastructure-error": "FAILED",
}


def statement(report: ReportDocument) -> str:
    """The statement, not signed. What was tested with is the report itself, the reference, and the baseline."""
    tests: dict[str, list[str]] = {"PASSED": [], "WARNED": [], "FAILED": []}
    for gate in report.gates:
        tests[RESULTS[gate.outcome]].append(f"{gate.bundle}: {gate.name}")
    configuration = [{"name": "report.json", "digest": {"sha256": hashlib.sha256(text(report).encode()).hexdigest()}}]
    if report.reference:
        configuration.append({"name": "reference", "digest": _digest(report.reference.key)})
    configuration += [
        {"name": f"baseline {entry.name}", "digest": _digest(entry.facts.id)}
        for entry in report.bundles
        if entry.name == report.baseline
    ]
    values: dict[str, Any] = {
        "_type": STATEMENT,
        "subject": [{"name": entry.name, "digest": _digest(entry.facts.id)} for entry in report.bundles[:1]],
        "predicateType": PREDICATE,
        "predicate": {
            "result": RESULTS[report.verdict.outcome],
            "configuration": configuration,
            "passedTests": tests["PASSED"],
            "warnedTests": tests["WARNED"],
            "failedTests": tests["FAILED"],
        },
    }
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def _digest(name: str) -> dict[str, str]:
    """The digest that a bundle or a result of the store is named by."""
    return {"sha256": name.removeprefix("sha256:")}
