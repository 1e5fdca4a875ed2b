"""Why a build would run a stage again: each stage's key compared with what the store holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.artifacts.canonical import key_of
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.artifacts.why import Absent, Change, explain_miss, told
from wanc.compiler.bundle.seal import NAME as SEAL
from wanc.compiler.bundle.seal import created
from wanc.compiler.bundle.standing import look_at
from wanc.compiler.pipeline import planned_build
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import tree_of
from wanc.compiler.stages.stage import Stage, Tree
from wanc.recipe.load import LoadedRecipe


@dataclass(frozen=True)
class Answer:
    """One stage: whether its result is stored, and otherwise what is new about its key.

    `changes` is None where the stage has never run, and empty where the result is stored.
    """

    stage: str
    stored: bool
    changes: tuple[Change, ...] | None = ()

    def as_json(self) -> dict[str, Any]:
        changes = (
            None
            if self.changes is None
            else [
                {"path": change.path, "old": _shown(change.old), "new": _shown(change.new)} for change in self.changes
            ]
        )
        return {"stage": self.stage, "stored": self.stored, "changes": changes}

    def as_text(self) -> str:
        if self.stored:
            return f"{self.stage}: stored"
        return told(f"{self.stage}: would run", self.changes)


class _Missed(Exception):
    """The first stage whose result is not there: what comes after depends on what it will make."""


def why(loaded: LoadedRecipe, output: Path, root: Path | None = None) -> list[Answer]:
    """The stages of a build in order, up to the first that would run. Raises UserError as a build would.

    `root` is the store, the one in `output` unless given.
    """
    created()  # refused before everything is hashed
    store = Store.existing(root or output / "store")
    answers: list[Answer] = []

    def look_up(stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
        document = stage.key_document(inputs)
        record = store.lookup(key_of(document))
        if record is None:
            answers.append(Answer(stage.name, False, explain_miss(stage.name, document, store.records())))
            raise _Missed
        answers.append(Answer(stage.name, True))
        return tree_of(record, store)

    resolved = resolve(loaded, SourceDigests(store), progress=False)
    try:
        plan = planned_build(loaded, resolved, look_up)
        engines = plan.run(look_up)
    except _Missed:
        return answers
    seal = plan.seal(output / "bundles" / loaded.recipe.name)
    document = seal.key_document(engines)
    record = store.lookup(key_of(document))
    if record is None:
        answers.append(Answer(SEAL, False, explain_miss(SEAL, document, store.records())))
        return answers
    bundle_id = str(record.meta["id"])
    standing = look_at(seal.destination, bundle_id, store)
    gone = Change("the bundle", bundle_id, standing.damage or "not at its destination")
    answers.append(Answer(SEAL, standing.is_wanted, () if standing.is_wanted else (gone,)))
    return answers


def _shown(value: object) -> object:
    return "(absent)" if isinstance(value, Absent) else value
