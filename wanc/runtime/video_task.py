"""The task `text-to-video`: one prompt, one video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .executor import flat
from .memory import peak_rss_bytes
from .pipeline import Pipeline, Request, load_latents
from .progress import ProgressBar
from .timer import Timer
from .video import create_video
from .video_bundle import VideoBundle


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
        return {
            "video": str(self.video),
            "frames": self.frames,
            "seconds": self.seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "counters": flat(self.counters),
        }

    def as_text(self) -> str:
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return f"{self.video}: {self.frames} frames ({phases}; peak memory {self.peak_rss_bytes / 2**20:.0f} MiB)"


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
    timer = Timer()
    with timer.phase("verify"), ProgressBar("verify", 0, enabled=progress) as bar:
        bundle = VideoBundle.open(root, progress=bar.move_to)
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
    return VideoReport(output, size.frames, timer.seconds, peak_rss_bytes(), pipeline.executor.counters())
