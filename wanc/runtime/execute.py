"""The two things that a bundle can be asked to do: its task, and to test itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Unpack

from .bundle import Bundle
from .destination import STDOUT, require_outside_bundles
from .directory import Root, as_directory
from .errors import BundleError, UserError
from .interface import TASK as GRAPH
from .manifest import Manifest
from .options import EXCLUSIVE, OPTIONS, VIDEO, RunLimits, options_of
from .progress import OnNote, OnProgress, ignore, ignore_note
from .requirements import differences
from .selftest import Check, selftest
from .suffixes import suffix_of


class Report(Protocol):
    """What came of it, for programs and for people."""

    @property
    def ok(self) -> bool: ...
    def as_json(self) -> dict[str, Any]: ...
    def as_text(self) -> str: ...


DOES: Mapping[str, str] = {VIDEO: "makes videos", GRAPH: "runs one graph"}
"""What a bundle of each task does, as messages say it."""


@dataclass(frozen=True)
class SelftestReport:
    """What `--selftest` found. `packages` says which are others than those that the bundle was built with."""

    bundle_id: str
    checks: list[Check]
    packages: list[str]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        checks = [
            {
                "graph": c.graph,
                # JSON has no infinity, which is what a NaN counts as.
                "relative_error": c.relative_error if math.isfinite(c.relative_error) else None,
                "tolerance": c.tolerance,
                "ok": c.ok,
            }
            for c in self.checks
        ]
        return {"ok": self.ok, "id": self.bundle_id, "checks": checks, "packages": self.packages}

    def as_text(self) -> str:
        lines = [
            f"{'ok  ' if check.ok else 'FAIL'} {check.graph}: error {check.relative_error:.1e}, "
            f"at most {check.tolerance:.0e}"
            for check in self.checks
        ]
        lines += [f"note: {line}" for line in self.packages]
        return "\n".join([*lines, "selftest passed" if self.ok else "selftest FAILED: do not use this bundle here"])


def run(
    root: Root,
    output: Path,
    options: Mapping[str, Any],
    *,
    on_progress: OnProgress = ignore,
    on_note: OnNote = ignore_note,
    **limits: Unpack[RunLimits],
) -> Report:
    """Do what the bundle is for. `options` are those of its task by name (see OPTIONS); None is one not given.

    Raises UserError, before anything is verified where the options are not those of the task, or nothing can be
    written to `output`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    directory = as_directory(root)
    task = _claimed_task(directory)
    if task is None:  # opening the bundle says what is wrong with it
        Bundle.open(directory, on_progress=on_progress).expect_task(task := VIDEO)
    _check_options(task, given)
    _check_output(output, task, is_folder="prompts" in given)
    if task == GRAPH:
        from .graph_task import run_graph

        return run_graph(directory, output, **given, **limits, on_progress=on_progress)
    # Imported late: a bundle of one graph does not ask for the libraries that videos take.
    from .video_task import run_video, run_videos

    run_task = run_videos if "prompts" in given else run_video
    return run_task(directory, output, **given, **limits, on_progress=on_progress, on_note=on_note)


def run_selftest(root: Root, *, on_progress: OnProgress = ignore, **limits: Unpack[RunLimits]) -> SelftestReport:
    """Verify the bundle and replay its golden inputs. Raises UserError, for whatever its task would be refused for."""
    directory = as_directory(root)
    bundle = Bundle.open(directory, on_progress=on_progress)
    checks = selftest(bundle, on_progress=on_progress, **limits)
    return SelftestReport(bundle.manifest.id, checks, differences(directory))


def _claimed_task(root: Root) -> str | None:
    """What the bundle says that it is for: not verified yet, and so good for nothing but refusing early."""
    with suppress(BundleError):
        task = Manifest.read(root).runtime.get("task")
        return task if isinstance(task, str) and task in DOES else None
    return None


def _check_options(task: str, given: Mapping[str, Any]) -> None:
    own = options_of(task)
    needed = [option for option in own if option.needed]
    advice = f"give {needed[0].flag} {needed[0].metavar}"
    asked = [option.flag for option in needed if option.name in given]
    known = {option.name for option in own}
    if foreign := [option.flag for option in OPTIONS if option.name in given and option.name not in known]:
        verb = "does" if len(foreign) == 1 else "do"
        flags = " and ".join(foreign)
        raise UserError(f"{flags} {verb} not apply: this bundle {DOES[task]}", hint=None if asked else advice)
    if not asked:
        raise UserError(f"this bundle {DOES[task]}: {advice}")
    for exclusive in (asked, [option.flag for option in own if option.name in EXCLUSIVE & given.keys()]):
        if len(exclusive) > 1:
            raise UserError(f"{' and '.join(exclusive)} exclude each other", hint="give one of them")


def _check_output(output: Path, task: str, *, is_folder: bool) -> None:
    """What its name says; whether something can be written there is found out by whoever does."""
    if is_folder:
        if output == STDOUT:
            raise UserError("the videos of --prompts go into a folder, not to standard output", hint="name a folder")
        require_outside_bundles(output, "folder")
    elif output != STDOUT:
        if not output.name:
            raise UserError("-o does not name a file", where=str(output))
        require_outside_bundles(output)
        suffix_of(output, task)
