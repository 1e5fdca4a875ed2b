"""A report as rich as they get: three bundles, a baseline, two floors, two clips, and what nobody should write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wanc.report.document import (
    BlockError,
    Branch,
    Cause,
    ChunkError,
    Clip,
    Cohort,
    Drift,
    Estimate,
    ExternalScores,
    Facts,
    Floor,
    GateResult,
    Invariant,
    LayerGroup,
    Media,
    MemoryPoint,
    Outcome,
    Quality,
    Ratio,
    ReportDocument,
    ReportedBundle,
    ReportedReference,
    Speed,
    StepError,
    Times,
    TrendPoint,
    Verdict,
    WorstFrame,
    WorstLayer,
)
from wanc.report.media import write_media

STEPS, BLOCKS, FRAMES, BOUNDARY = 20, 12, 17, 7
CHUNKS = 5
EXPERTS = ("denoiser_high", "denoiser_low")
HOSTILE = "</script><script>alert('<b>1</b>')</script><img src=x onerror=alert(2)> $x %{y} | `a` *b* @team"
PROMPTS = ("绿色三角形向右移动。🙂 A green triangle moves right.", HOSTILE)
NEW, BASELINE, OTHER = "tiny-wan-int8", "tiny-wan-bf16", "tiny-wan-int8-weight"


def example(media: dict[str, list[Media]] | None = None) -> ReportDocument:
    """The whole report; `media` by bundle, and the reference's under an empty name."""
    media = media or {}
    entries = [
        entry(NEW, 8.31, 4.1e-3, 0.31, fault=(4, 6.0), media=media.get(NEW, [])),
        entry(BASELINE, 11.92, 1.3e-3, 0.52, media=media.get(BASELINE, [])),
        entry(OTHER, 10.4, 1.9e-3, 0.29, media=media.get(OTHER, [])),
    ]
    return ReportDocument(
        title=f"{NEW} against {BASELINE}",
        wanc="1.4.0",
        verdict=Verdict(
            outcome="regression",
            summary=f"{NEW} takes 0.70× the time of {BASELINE}, and its velocity error is 3.2 times as large: 2 of 9 "
            "gates are not met.",
            cause=Cause(
                kind="layer",
                name="denoiser_low/blocks.4.ffn.net.2",
                detail="its error grows from 0.0012 to 0.0074 at step 9; the input's range of channel 131 is 40 times "
                "the median's",
            ),
        ),
        reference=reference(media.get("", [])),
        clips=[Clip(prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS, start=7)],
        baseline=BASELINE,
        machine=Cohort(
            processor="a processor of sixteen cores",
            cores=16,
            features=["avx512f", "avx512_vnni", "amx_bf16"],
            tools={"onnxruntime": "1.32.0", "openvino": "2026.4.1"},
            threads=8,
        ),
        bundles=entries,
        gates=gates(),
        trend=trend(),
        notes=["MS-SSIM has three scales here: the frames are too small for five.", f"A note: {HOSTILE}"],
    )


def reference(media: list[Media]) -> ReportedReference:
    floors = [floor("fp32", 2.4e-6), floor("bf16", 9.1e-4)]
    return ReportedReference(
        model="tiny-wan",
        width=64,
        height=64,
        frames=FRAMES,
        fps=16,
        steps=STEPS,
        solver="unipc",
        key="c" * 64,
        floors=floors,
        detector="moving-shapes",
        prompt_agreement=Estimate(mean=0.917, low=0.833, high=1.0, count=1),
        media=media,
    )


def floor(unit: str, error: float) -> Floor:
    summary = {
        "psnr_db": around(-20 * math.log10(error) - 8),
        "ssim": around(1 - error),
        "cosine": around(1 - error**2),
        "prompt_agreement": around(1.0),
    }
    return Floor.model_validate(
        {"unit": unit, "draws": 4, "velocity_error": error, "drift": drift(error), "summary": summary}
    )


def around(mean: float) -> Estimate:
    return Estimate(mean=mean, low=mean * 0.97, high=min(mean * 1.02, 100.0) if mean > 1 else mean, count=len(PROMPTS))


def drift(error: float) -> list[Drift]:
    return [
        Drift(step=step, cosine=1 - error**2 * (step + 1), sqnr_db=-20 * math.log10(error) - 6 * math.log2(step + 1))
        for step in range(STEPS)
    ]


def expert_at(step: int) -> str:
    return EXPERTS[step >= BOUNDARY]


def step_errors(error: float) -> list[StepError]:
    branches: dict[Branch, float] = {"conditional": 0.8, "unconditional": 0.7, "guided": 1.0}
    return [
        StepError(
            step=step,
            timestep=1000.0 - 50 * step,
            expert=expert_at(step),
            branch=branch,
            error=error * share * (1 + 0.4 * math.sin(step / 2) + 0.06 * step),
        )
        for step in range(STEPS)
        for branch, share in branches.items()
    ]


def chunk_errors(error: float) -> list[ChunkError]:
    """As of a causal model, which the example is not: no report has everything."""
    return [
        ChunkError(
            chunk=chunk,
            first_frame=1 + 4 * (chunk - 1) if chunk else 0,
            frames=4 if chunk else 1,
            steps=[error * (1 + chunk / 10)] * STEPS,
            velocity_error=error * (1 + chunk / 10),
            cosine=1 - error**2,
            sqnr_db=-20 * math.log10(error) - chunk,
            psnr_db=-20 * math.log10(error) - 8 - chunk,
        )
        for chunk in range(CHUNKS)
    ]


def block_errors(error: float, fault: tuple[int, float]) -> list[BlockError]:
    first, factor = fault
    return [
        BlockError(
            step=step,
            expert=expert_at(step),
            block=block,
            error=error
            * (0.2 + 0.07 * block + 0.02 * step)
            * (factor if block >= first and expert_at(step) == EXPERTS[1] else 1),
        )
        for step in range(STEPS)
        for block in range(BLOCKS)
    ]


def quality(error: float, fault: tuple[int, float]) -> Quality:
    psnr = -20 * math.log10(error) - 8
    videos = [{"psnr_db": psnr + 1, "ssim": 1 - 2 * error, "cosine": 1 - error**2, "prompt_agreement": 2 / 3}]
    videos.append({"psnr_db": psnr - 1, "ssim": 1 - 4 * error, "cosine": 1 - 3 * error**2})
    return Quality(
        steps=step_errors(error),
        blocks=block_errors(error, fault),
        drift=drift(error),
        chunks=chunk_errors(error),
        videos=videos,
        summary={
            "velocity_error": Estimate(mean=error, low=error * 0.93, high=error * 1.08, count=2),
            "psnr_db": Estimate(mean=psnr, low=psnr - 1.2, high=psnr + 1.1, count=2),
            "ssim": Estimate(mean=1 - 3 * error, low=1 - 4 * error, high=1 - 2 * error, count=2),
            "cosine": Estimate(mean=1 - 2 * error**2, low=1 - 3 * error**2, high=1 - error**2, count=2),
            "prompt_agreement": Estimate(mean=2 / 3, low=2 / 3, high=2 / 3, count=1),
        },
        invariants=[
            Invariant(name="repeatable", holds=True, detail="three runs, equal bytes"),
            Invariant(name="batch", holds=error < 4e-3, detail="two prompts at once against one after the other"),
            Invariant(name="tiled decoding", holds=None, detail="the video fits one tile"),
        ],
        worst_layers=[
            WorstLayer(name="denoiser_low/blocks.4.ffn.net.2", scheme="int8", sqnr_db=18.2, reason="outliers"),
            WorstLayer(name="denoiser_high/blocks.0.attn1.to_q", scheme="int8", sqnr_db=27.9, reason="few values"),
        ],
        worst_frames=[WorstFrame(clip=1, frame=16, psnr_db=psnr - 4), WorstFrame(clip=0, frame=3, psnr_db=psnr - 2)],
    )


def times(median: float) -> Times:
    return Times(
        seconds=[median * share for share in (0.98, 1.0, 1.03)], median=median, low=median * 0.985, high=median * 1.025
    )


def speed(total: float, peak: float) -> Speed:
    shares = {
        "open": 0.03,
        "text": 0.05,
        "first_step": 0.06,
        "step denoiser_high": 0.031,
        "step denoiser_low": 0.03,
        "switch": 0.01,
        "decode": 0.2,
        "encode": 0.01,
        "first_frame": 0.82,
        "total": 1.0,
    }
    return Speed(
        phases={phase: times(total * share) for phase, share in shares.items()},
        videos_per_hour=3600 / total,
        frames_per_second=FRAMES / total,
        session_bytes=3 * 2**20,
        peak_rss_bytes=round(peak * 2**30),
        memory=memory(total, peak),
    )


def memory(total: float, peak: float) -> list[MemoryPoint]:
    ends = {"open": 0.03, "text": 0.08, "denoiser_high": 0.38, "denoiser_low": 0.78, "decode": 0.98, "encode": 1.0}
    points: list[MemoryPoint] = []
    for tick in range(101):
        share = tick / 100
        phase = next(name for name, end in ends.items() if share <= end)
        level = {"open": 0.3, "text": 0.7, "denoiser_high": 0.6, "denoiser_low": 0.65, "decode": 1.0, "encode": 0.5}
        held = peak * level[phase] * (1 - 0.04 * math.cos(tick))
        points.append(MemoryPoint(seconds=share * total, rss_bytes=round(held * 2**30 / 1.04), phase=phase))
    return points


def entry(
    name: str, total: float, error: float, peak: float, fault: tuple[int, float] = (0, 1.0), media: Sequence[Media] = ()
) -> ReportedBundle:
    scheme = name.removeprefix("tiny-wan-")
    linears = [f"{expert}/blocks.{block}.ffn.net.2" for expert in EXPERTS for block in range(BLOCKS)]
    ratio = total / 11.92
    ratios = [
        Ratio(phase=phase, ratio=ratio * share, low=ratio * share * 0.96, high=ratio * share * 1.05, pairs=9)
        for phase, share in {"total": 1.0, "decode": 1.43, "text": 1.2, "step denoiser_high": 0.9}.items()
    ]
    return ReportedBundle(
        name=name,
        recipe=f"recipes/{name}.yaml",
        facts=Facts(
            id=f"sha256:{len(name):064x}",
            version="3",
            engine="openvino",
            compute="bf16",
            scheme=scheme,
            segments=2,
            size_bytes=round(peak * 1.9e8),
            build_seconds=None if name == OTHER else 93.4,
            int8_linear_share=dict.fromkeys(EXPERTS, 0.0 if name == BASELINE else 0.973),
            attention_share=dict.fromkeys(EXPERTS, 0.184),
            schemes={} if name == BASELINE else dict.fromkeys(linears, scheme),
        ),
        quality=quality(error, fault),
        speed=speed(total, peak),
        ratios=[] if name == BASELINE else ratios,
        groups=[] if name == BASELINE else groups(scheme, ratio),
        media=list(media),
        external=scores() if name == NEW else None,
    )


def groups(scheme: str, ratio: float) -> list[LayerGroup]:
    seconds = {"attn1.to_q, k, v": 0.004, "ffn.net.2": 0.0031}
    return [
        LayerGroup(
            expert=expert,
            group=group,
            scheme=scheme,
            seconds=took * ratio,
            baseline_scheme="float",
            baseline_seconds=took,
        )
        for expert in EXPERTS
        for group, took in seconds.items()
    ]


def scores() -> ExternalScores:
    dimensions = {"subject_consistency": 0.9581, "imaging_quality": 0.61237, "dynamic_degree": 0.5}
    mean = 100 * sum(dimensions.values()) / len(dimensions)
    return ExternalScores(source="wan_eval_results.json", sha256="d" * 64, dimensions=dimensions, mean_percent=mean)


def gates() -> list[GateResult]:
    rows: list[tuple[str, str, str, float | None, float | None, str, Outcome, str]] = [
        ("psnr_db", "quality", ">= 30", 39.74, 30.0, "dB", "pass", "39.74 dB, at least 38.54 dB with 95 %"),
        ("velocity_error", "quality", "<= 3 floors", 4.1e-3, 2.73e-3, "", "regression", "4.5 floors of bf16"),
        ("total", "speed", "<= 0.8 baseline", 0.697, 0.8, "×", "pass", "0.70× the baseline's"),
        ("size", "size", "<= 64MiB", 58900000.0, 67108864.0, "bytes", "pass", "what the bundle's files hold"),
        ("prompt_agreement", "quality", ">= 0.6", 2 / 3, 0.6, "share", "pass", "0.6667 >= 0.6"),
        ("batch", "exact", "holds", None, None, "", "regression", "two prompts at once are not what each is alone"),
        ("ms_ssim", "quality", ">= 2 floors", None, None, "", "needs-calibration", "no floor has it"),
        (
            *("external.mean", "quality", ">= 68.5", 69.0157, 68.5, "percent"),
            *("pass", "69.0157 >= 68.5"),
        ),
        ("peak_rss", "size", "<= baseline", None, None, "", "not-comparable", f"{BASELINE} ran elsewhere"),
    ]
    return [
        GateResult.model_validate(
            {
                "name": name,
                "bundle": NEW,
                "demand": demand,
                "kind": kind,
                "value": value,
                "bound": bound,
                "unit": unit,
                "outcome": outcome,
                "reason": reason,
            }
        )
        for name, kind, demand, value, bound, unit, outcome, reason in rows
    ]


def trend() -> list[TrendPoint]:
    outcomes: list[Outcome] = ["pass", "pass", "needs-calibration", "pass", "regression", "pass"]
    return [
        TrendPoint(
            id=f"sha256:{build:064x}",
            name=NEW,
            time=f"2026-03-{build + 10:02}T08:00:00Z",
            outcome=outcome,
            values={
                "velocity_error": 1.4e-3 * (1 + 0.2 * (build % 3)),
                "psnr_db": 48.0 - build / 2,
                "total": 9 - build / 9,
            },
        )
        for build, outcome in enumerate(outcomes)
    ]


def nothing(outcome: Outcome = "infrastructure-error") -> ReportDocument:
    """A report of which nothing was measured."""
    machine = Cohort(processor="a processor", cores=2, features=[], tools={}, threads=2)
    verdict = Verdict(outcome=outcome, summary="The reference could not be computed.")
    return ReportDocument(
        title="nothing",
        wanc="1.4.0",
        verdict=verdict,
        reference=None,
        clips=[],
        baseline=None,
        machine=machine,
        bundles=[],
        gates=[],
    )


def clip(seed: int, noise: float = 0.0, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """A triangle that moves right over a gradient."""
    frames = np.zeros((FRAMES, height, width, 3), np.float64)
    rows, columns = np.mgrid[:height, :width]
    frames += np.stack([rows * 2, columns * 2, 90 + 0 * rows], axis=-1) * 0.6
    for number in range(FRAMES):
        inside = abs(columns - 8 - 3 * number) < (rows - 12) / 2 * (rows < 44)
        frames[number, inside] = (60, 220, 90) if seed % 2 else (230, 120, 60)
    frames += np.random.default_rng(seed).normal(0, noise, frames.shape) if noise else 0
    return frames.round().clip(0, 255).astype(np.uint8)


def write_example_media(folder: Path) -> dict[str, list[Media]]:
    """Two clips of the reference and of each bundle."""
    media: dict[str, list[Media]] = {"": []}
    for number in range(len(PROMPTS)):
        expected = clip(number)
        media[""].append(write_media(folder, f"reference-{number}", expected, 16))
        for name, noise in ((NEW, 9.0), (BASELINE, 1.5), (OTHER, 3.0)):
            frames = clip(number, noise)
            media.setdefault(name, []).append(write_media(folder, f"{name}-{number}", frames, 16, expected))
    return media
