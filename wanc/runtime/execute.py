"""The two things that a bundle can be asked to do: its task, and to test itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .bundle import Bundle
from .errors import BundleError, UserError
from .manifest import Manifest
from .progress import ProgressBar
from .selftest import Check, selftest


class Report(Protocol):
    """What came of it, for programs and for people."""

    @property
    def ok(self) -> bool: ...
    def as_json(self) -> dict[str, Any]: ...
    def as_text(self) -> str: ...


class Usage(NamedTuple):
    """How a task is asked for: what it does, which option it needs, and which others it knows."""

    does: str
    needed: str
    value: str
    optional: tuple[str, ...] = ()


USAGES: Mapping[str, Usage] = {
    "text-to-video": Usage(
        "makes videos", "prompt", "TEXT", ("negative_prompt", "seed", "steps", "shape", "frames", "latents")
    ),
    "graph": Usage("runs one graph", "inputs", "FILE.npz"),
}


@dataclass(frozen=True)
class SelftestReport:
    """What `--selftest` found."""

    bundle_id: str
    checks: list[Check]

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
        return {"ok": self.ok, "id": self.bundle_id, "checks": checks}

    def as_text(self) -> str:
        lines = [
            f"{'ok  ' if check.ok else 'FAIL'} {check.graph}: error {check.relative_error:.1e}, "
            f"at most {check.tolerance:.0e}"
            for check in self.checks
        ]
        return "\n".join([*lines, "selftest passed" if self.ok else "selftest FAILED: do not use this bundle here"])


def run(
    root: Path, output: Path, options: Mapping[str, Any], *, threads: int | None = None, progress: bool = True
) -> Report:
    """Do what the bundle is for. `options` are those of its task by name (see USAGES); None is one not given.

    Raises UserError, with exit code 2 before anything is verified where the options are not those of the task.
    """
    given = {name: value for name, value in options.items() if value is not None}
    task = _claimed_task(root)
    if task is not None:
        _check_options(USAGES[task], given)
    _check_output(root, output)
    if task == "graph":
        from .graph_task import run_graph

        return run_graph(root, output, **given, threads=threads, progress=progress)
    # Imported late: a bundle of one graph does not ask for the libraries that videos take.
    from .video_task import run_video

    return run_video(root, output, **given, threads=threads, progress=progress)


def run_selftest(root: Path, *, threads: int | None = None, progress: bool = True) -> SelftestReport:
    """Verify the bundle and replay its golden inputs. Raises UserError."""
    with ProgressBar("verify", 0, enabled=progress) as bar:
        bundle = Bundle.open(root, progress=bar.move_to)
    return SelftestReport(bundle.manifest.id, selftest(bundle, threads=threads, progress=progress))


def _claimed_task(root: Path) -> str | None:
    """What the bundle says that it is for: not verified yet, and so good for nothing but refusing early."""
    with suppress(BundleError):
        task = Manifest.read(root).runtime.get("task")
        return task if isinstance(task, str) and task in USAGES else None
    return None


def _check_options(usage: Usage, given: Mapping[str, Any]) -> None:
    advice = f"give --{usage.needed} {usage.value}"
    if foreign := [name for name in given if name not in (usage.needed, *usage.optional)]:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in foreign)
        verb = "does" if len(foreign) == 1 else "do"
        hint = None if usage.needed in given else advice
        raise UserError(f"{flags} {verb} not apply: this bundle {usage.does}", hint=hint)
    if usage.needed not in given:
        raise UserError(f"this bundle {usage.does}: {advice}")


def _check_output(root: Path, output: Path) -> None:
    """A file written into the bundle would break its seal, which `cd bundle; python run.py -o out.mp4` invites."""
    if not output.name:
        raise UserError("-o does not name a file", where=str(output))
    if output.resolve().is_relative_to(root.resolve()):
        raise UserError(
            "the output would lie inside the bundle, which is never written to",
            where=str(output),
            hint="name a file elsewhere",
        )
