"""What a report comes to: its worst gate, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from wanc.report.document import Cause, GateResult, Outcome, Verdict

SEVERITY: tuple[Outcome, ...] = ("infrastructure-error", "not-comparable", "regression", "needs-calibration", "pass")
"""From what says that there is no result to what says that all is well."""
SENTENCES: dict[Outcome, str] = {
    "pass": "{bundle} may ship: all {count} gates hold.",
    "regression": "{bundle} may not ship: {failed} of {count} gates do not hold, first {gate} ({reason}).",
    "needs-calibration": "Nothing is said of {bundle} yet: {gate} has nothing to be measured by ({reason}).",
    "not-comparable": "{bundle} cannot be compared: {reason}.",
    "infrastructure-error": "There is no result for {bundle}: {reason}.",
}


def verdict(bundle: str, gates: Sequence[GateResult], cause: Cause | None) -> Verdict:
    """Of the gates of the new bundle; without any it passes."""
    found: set[Outcome] = {gate.outcome for gate in gates}
    outcome: Outcome = min(found, key=SEVERITY.index) if found else "pass"
    worst = [gate for gate in gates if gate.outcome == outcome]
    words = {
        "bundle": bundle,
        "count": len(gates),
        "failed": len(worst),
        "gate": worst[0].name if worst else "",
        "reason": worst[0].reason.rstrip(".") if worst else "",
    }
    return Verdict(outcome=outcome, summary=SENTENCES[outcome].format(**words), cause=cause)
