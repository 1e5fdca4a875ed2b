"""The two things that a bundle can be asked to do, each with its report for people and for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .errors import UserError
from .memory import peak_rss_bytes
from .pipeline import Pipeline, Request, Timer, load_latents
from .progress import ProgressBar
from .selftest import Check, selftest
from .video import create_video


@dataclass(frozen=True)
class VideoReport:
    """What `run` made, and what it cost."""

    video: Path
    frames: int
    seconds: dict[str, float]
    peak_rss_bytes: int
    counters: dict[str, dict[str, int | float]]
    ok = True

    def as_json(self) -> dict[str, Any]:
        flat = {f"{graph}.{name}": value for graph, counter in self.counters.items() for name, value in counter.items()}
        return {
            "video": str(self.video),
            "frames": self.frames,
            "seconds": self.seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "counters": flat,
        }

    def as_text(self) -> str:
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return f"{self.video}: {self.frames} frames ({phases}; peak memory {self.peak_rss_bytes / 2**20:.0f} MiB)"


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


def run_video(
    root: Path,
    output: Path,
    *,
    prompt: str,
    negative_prompt: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    frames: int | None = None,
    shape: str | None = None,
    latents: Path | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> VideoReport:
    """Generate one video into an mp4 file, which appears only when it is complete. Raises UserError."""
    _check_output(root, output)
    timer = Timer()
    with timer.phase("verify"):
        bundle = _open_verified(root, progress)
    pipeline = Pipeline(bundle, threads=threads, progress=progress)
    noise = load_latents(latents) if latents is not None else None
    request = Request(prompt, negative_prompt, seed, steps, shape, frames, noise)
    size = bundle.shape(shape, frames)
    metadata = {"prompt": prompt, "seed": str(seed), "bundle": bundle.manifest.id}
    if latents is not None:
        metadata["seed"] = f"latents from {latents.name}"
    fps = bundle.sampling.fps
    with create_video(output, height=size.height, width=size.width, fps=fps, metadata=metadata) as video:
        clean = pipeline.denoise(request, timer)
        for chunk in pipeline.decode(clean, timer):
            with timer.phase("video"):
                video.write(chunk)
    return VideoReport(output, size.frames, timer.seconds, peak_rss_bytes(), pipeline.sessions.counters())


def run_selftest(root: Path, *, threads: int | None = None, progress: bool = True) -> SelftestReport:
    """Verify the bundle and replay its golden inputs. Raises UserError."""
    bundle = _open_verified(root, progress)
    return SelftestReport(bundle.manifest.id, selftest(bundle, threads=threads, progress=progress))


def _check_output(root: Path, output: Path) -> None:
    """A file written into the bundle would break its seal, which `cd bundle; python run.py -o out.mp4` invites."""
    if not output.name:
        raise UserError("-o does not name a file", where=str(output))
    if output.resolve().is_relative_to(root.resolve()):
        raise UserError(
            "the video would lie inside the bundle, which is never written to",
            where=str(output),
            hint="name a file elsewhere",
        )


def _open_verified(root: Path, progress: bool) -> Bundle:
    with ProgressBar("verify", 0, enabled=progress) as bar:
        return Bundle.open(root, progress=bar.move_to)
