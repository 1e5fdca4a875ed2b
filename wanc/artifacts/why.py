"""Why a stage has to run: what is new about its key, compared with the run that came closest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from wanc.artifacts.records import ActionRecord
from wanc.runtime.strict_json import JsonValue


class Absent(Enum):
    """Stands for a value that one of the two documents does not have; null is a value."""

    ABSENT = "(absent)"

    def __str__(self) -> str:
        return self.value


ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class Change:
    """One leaf of a key document, like `params.smooth.alpha` or `inputs[3].digest`, that differs."""

    path: str
    old: JsonValue | Absent
    new: JsonValue | Absent


def explain_miss(
    stage: str, document: Mapping[str, JsonValue], records: Iterable[ActionRecord]
) -> tuple[Change, ...] | None:
    """How the key document differs from the one it is closest to among the records of the same stage and component.

    Closest has the fewest differing leaves; of equals, the smallest key. None when the stage has no record, empty
    when the document is recorded, and so is no miss.
    """
    new = dict(_leaves(document, ""))
    olds = ((dict(_leaves(record.document, "")), record.key) for record in records if record.stage == stage)
    differences = ((_changes(old, new), key) for old, key in olds if _subject(old) == _subject(new))
    closest = min(differences, key=lambda found: (len(found[0]), found[1]), default=None)
    return closest[0] if closest else None


def _subject(leaves: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What a stage works on: the one of another component says nothing of why this one runs."""
    return {path: value for path, value in leaves.items() if path.rpartition(".")[2] in ("component", "index")}


def told(what: str, changes: tuple[Change, ...] | None) -> str:
    """`what` runs, or would run, and why, as `explain_miss` has found: a line, and one for each change."""
    if not changes:
        return f"{what}: {'it has never run before' if changes is None else 'its result is gone'}"
    return "\n".join([f"{what}, because of", *(f"  {change.path}: {change.old} → {change.new}" for change in changes)])


def _changes(old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]) -> tuple[Change, ...]:
    return tuple(
        Change(path, old.get(path, ABSENT), new.get(path, ABSENT))
        for path in sorted(old.keys() | new.keys())
        if path not in old or path not in new or not _same(old[path], new[path])
    )


def _same(old: JsonValue, new: JsonValue) -> bool:
    return old == new and isinstance(old, bool) == isinstance(new, bool)  # True == 1 in Python, not in a key


def _leaves(value: JsonValue | Mapping[str, JsonValue], path: str) -> Iterator[tuple[str, JsonValue]]:
    """(path, value) of everything below that is neither a filled object nor a filled list."""
    if isinstance(value, Mapping) and value:
        for name, child in value.items():
            step = name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) else f'["{name}"]'
            yield from _leaves(child, f"{path}.{step}" if path and not step.startswith("[") else f"{path}{step}")
    elif isinstance(value, list) and value:
        for index, child in enumerate(value):
            yield from _leaves(child, f"{path}[{index}]")
    else:
        yield path, dict(value) if isinstance(value, Mapping) else value
