"""Running stages through the store: looked up by key first, computed once even by many processes at a time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wanc.artifacts.canonical import digest_of, key_of
from wanc.artifacts.files import free_bytes, looks_of
from wanc.artifacts.kept import forget_damaged, keep
from wanc.artifacts.records import ActionRecord
from wanc.artifacts.sources import changed
from wanc.artifacts.store import Store
from wanc.artifacts.why import explain_miss, told
from wanc.compiler.stages.code_version import check_code
from wanc.compiler.stages.running import Action, in_turn
from wanc.compiler.stages.stage import Files, Stage, Tree, scratch_of
from wanc.compiler.stages.worker import run_in_worker
from wanc.errors import OutputError, UserError
from wanc.runtime.progress import Bars
from wanc.runtime.voice import explain, is_asked_why, say

SOURCES = "sources"
"""In the folder of a stage that resumes: the looks of the sources that it began with."""


@dataclass(frozen=True)
class StageRun:
    """How one stage went: wall seconds of this build, and peak memory of the process that computed it.

    `label` is its name with the part of the model that it worked on.
    """

    name: str
    seconds: float
    cached: bool
    peak_rss_bytes: int
    key: str | None = None
    label: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "label": self.label or self.name,
            "seconds": round(self.seconds, 3),
            "cached": self.cached,
            "peak_rss_bytes": self.peak_rss_bytes,
        }


OnEnd = Callable[[Stage, StageRun], None]


@dataclass
class Runner:
    """Runs the stages of one build and remembers how each went."""

    store: Store
    progress: bool
    runs: list[StageRun] = field(default_factory=list[StageRun])
    on_end: OnEnd = lambda _stage, _run: None
    """Is told of each stage that has ended, and may raise what then stops the build."""

    def run(self, stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
        """The stage's result: from the store where it is there, computed otherwise. Raises what the stage raises."""
        started = time.perf_counter()
        document = stage.key_document(inputs)
        key = key_of(document)
        record = self.store.lookup(key)
        cached = record is not None
        if record is None:
            self._explain(stage, document)
            with self.store.action_lock(key, on_wait=say):
                # Another build may have computed it while this one waited.
                record = self.store.lookup(key)
                cached = record is not None
                if record is None:
                    record = self._compute(stage, key, document, inputs)
        self.note(stage.name, started, cached, record, stage.label)
        self.on_end(stage, self.runs[-1])
        return tree_of(record, self.store)

    def run_all(self, actions: Sequence[Action]) -> list[Tree]:
        """The results of stages that do not depend on each other, in their order; here one after the other."""
        return in_turn(self.run)(actions)

    def note(self, name: str, started: float, cached: bool, record: ActionRecord, label: str | None = None) -> None:
        """Remember a stage that ended just now; `started` is a `perf_counter` reading."""
        peak = record.meta.get("peak_rss_bytes", 0)
        assert isinstance(peak, int)
        run = StageRun(name, time.perf_counter() - started, cached, peak, record.key, label or name)
        self.runs.append(run)
        self.tell(run)

    def tell(self, run: StageRun) -> None:
        """Its line, for people."""
        how = "cached" if run.cached else f"{run.seconds:.1f} s, peak {run.peak_rss_bytes / 2**20:.0f} MiB"
        (say if self.progress else explain)(f"{run.label}: {how}")

    def _explain(self, stage: Stage, document: dict[str, Any]) -> None:
        if is_asked_why():
            explain(told(f"{stage.label}: runs", explain_miss(stage.name, document, self.store.records())))

    def _compute(self, stage: Stage, key: str, document: dict[str, Any], inputs: Mapping[str, Tree]) -> ActionRecord:
        started = time.perf_counter()
        with self.store.workdir() as workdir:
            out = workdir / "out"
            out.mkdir()
            explain(f"{stage.label}: works in {workdir}")
            if stage.resumes:
                scratch_of(out).symlink_to(self.store.scratch(key))
                explain(f"{stage.label}: keeps what it has finished in {self.store.scratch(key)}")
            peak = self._run(stage, key, inputs, out)
            meta = {"seconds": round(time.perf_counter() - started, 3), "peak_rss_bytes": peak}
            record = self.store.commit(key, stage=stage.name, document=document, tree=out, meta=meta)
        if stage.resumes:
            self.store.drop_scratch(key)
        return record

    def _run(self, stage: Stage, key: str, inputs: Mapping[str, Tree], out: Path) -> int:
        """The process of a stage, and then another look at all that it has read: the result is kept by its digests."""
        files = _locate_all(inputs)
        if stage.resumes:
            self._forget_if_changed(key, files)
        self._require_space(stage, key, files)
        try:
            with Bars(enabled=self.progress, transient=True) as bars:
                bars.begin(stage.label)
                peak = run_in_worker(stage, files, out, progress=bars if self.progress else None)
        except Exception:
            self._look_again(stage, key, inputs)  # what changed is a better reason than what the stage made of it
            raise
        self._look_again(stage, key, inputs)
        return peak

    def _require_space(self, stage: Stage, key: str, files: Mapping[str, Files]) -> None:
        """Raises OutputError where a stage would fill the disk: after hours, perhaps, and at another's cost."""
        needed, root = stage.disk_bytes(files), self.store.root
        if stage.resumes:
            needed -= sum(path.stat().st_size for path in self.store.scratch(key).iterdir())
        free = free_bytes(root)
        explain(f"{stage.label}: about {max(needed, 0)} bytes of disk needed, {free} bytes free")
        if needed > free:
            raise OutputError(
                f"no space for the stage {stage.label}: about {needed} bytes needed, {free} bytes free",
                where=str(root),
                hint="free some space, with `wanc store gc` for one, or choose a store on another file system: --store",
            )

    def _look_again(self, stage: Stage, key: str, inputs: Mapping[str, Tree]) -> None:
        try:
            check_code()
            _locate_all(inputs)
        except UserError:
            if stage.resumes:
                self.store.drop_scratch(key)
            raise

    def _forget_if_changed(self, key: str, files: Mapping[str, Files]) -> None:
        """Drop what a stage has kept unless its sources are the very files that they were when it began.

        They may have been others while it was made, and put back after the build was killed.
        """
        outside = {
            f"{tree}/{name}": _looks(path)
            for tree, paths in files.items()
            for name, path in paths.items()
            if not path.is_relative_to(self.store.root)
        }
        if not outside:
            return
        looks, note = digest_of(outside), self.store.scratch(key) / SOURCES
        forget_damaged(note)
        if any(note.parent.iterdir()) and not (note.exists() and note.read_text("ascii") == looks):
            say(
                "warning: sources have changed since a build was stopped: what it had finished of a stage is made again"
            )
            self.store.drop_scratch(key)
        keep(self.store.scratch(key) / SOURCES, lambda place: place.write_text(looks, "ascii"))


def _looks(path: Path) -> str:
    try:
        return " ".join(map(str, looks_of(path)))
    except OSError as error:
        raise changed(path) from error


def _locate_all(inputs: Mapping[str, Tree]) -> dict[str, Files]:
    return {name: tree.locate() for name, tree in inputs.items()}


def tree_of(record: ActionRecord, store: Store) -> Tree:
    """A stored result as the input of the next stage. Contents are checked when they are located, not before."""
    digests = {path: blob.digest for path, blob in record.files.items()}
    return Tree(digests, functools.partial(_locate, record, store))


def _locate(record: ActionRecord, store: Store) -> Files:
    # In one order, whether the result was computed just now or read from the store.
    return {path: store.path(blob) for path, blob in sorted(record.files.items())}
