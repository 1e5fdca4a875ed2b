"""What a report says: one document, which HTML, Markdown, JSON and JUnit show, and nothing else is shown.

Errors are relative, ‖found − expected‖ / ‖expected‖, unless their names say otherwise; times are seconds, sizes bytes.
What was not measured is None. Bundles are known by `name`, which is that of the folder unless two have the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wanc.artifacts.files import opened_input
from wanc.errors import EXIT_DATA, EXIT_NOT_COMPARABLE, UserError
from wanc.runtime.strict_json import MAX_BYTES, parse_object

SCHEMA = "wanc.report/1.0"
Outcome = Literal["pass", "regression", "needs-calibration", "not-comparable", "infrastructure-error"]
"""`needs-calibration`: there is no noise floor to tell a change from noise by. `not-comparable`: other shapes, prompts,
model or machine. `infrastructure-error`: something broke before there was a result.
"""
EXIT_CODES: Mapping[Outcome, int] = {
    "pass": 0,
    "regression": 1,
    "needs-calibration": 3,
    "not-comparable": EXIT_NOT_COMPARABLE,
    "infrastructure-error": 70,
}
Branch = Literal["conditional", "unconditional", "guided"]
"""`guided` is what both of them come to, and what a step is made with."""
MediaPath = Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")]
"""Beneath the document's folder, separated by "/"; no part of it begins with a dot, so that none leads out."""


class DocumentPart(BaseModel):
    """What all parts of the document share."""

    # JSON has no NaN and no infinities: who measures decides what stands for them.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Estimate(DocumentPart):
    """A mean over clips, and between what bounds it lies with 95 %, by bootstrap over them."""

    mean: float
    low: float
    high: float
    count: int


class Clip(DocumentPart):
    """What every bundle is asked for."""

    prompt: str
    seed: int


class Facts(DocumentPart):
    """A bundle as it was built, read back from it."""

    id: str
    version: str
    engine: str
    compute: str
    scheme: str
    segments: int
    size_bytes: int
    build_seconds: float | None = None
    """What its stages took together, each when it was computed: one that the store had already counts as well."""
    int8_linear_share: dict[str, float]
    """By component; of what its Linears compute, at most 1."""
    attention_share: dict[str, float] = {}
    """By expert; of the FLOPs of all products of a step. 8-bit Linears do nothing about these."""
    kv_cache: str | None = None
    """How a causal model's videos are divided, and what is kept of the past."""
    schemes: dict[str, str]
    """`<component>/<Linear>` → how it is computed, of every Linear that a QuantTable names."""


class StepError(DocumentPart):
    """Of an expert's velocity at the reference's own state, mean over clips, and over chunks of a causal model's."""

    step: int
    timestep: float
    expert: str
    branch: Branch
    error: float


class BlockError(DocumentPart):
    """Of the residual stream behind a block, at the reference's own state, conditional branch, mean over clips; of a
    causal model's last chunk.
    """

    step: int
    expert: str
    block: int
    error: float


class Drift(DocumentPart):
    """Of latents behind a step of a free run, mean over clips."""

    step: int
    cosine: float
    sqnr_db: float


class ChunkError(DocumentPart):
    """Of one chunk of a causal model's videos, mean over clips."""

    chunk: int
    first_frame: int
    frames: int
    steps: list[float]
    """Of the guided velocity, at the reference's own states and behind its own past; by step, of a floor by tapped
    step.
    """
    velocity_error: float
    """The mean of these."""
    cosine: float
    sqnr_db: float
    """Of clean latents of a free run, as that has drifted from chunk to chunk; and of its frames:"""
    psnr_db: float


class Invariant(DocumentPart):
    """What holds exactly, or does not; None where it does not apply."""

    name: str
    holds: bool | None
    detail: str


class WorstLayer(DocumentPart):
    """A Linear that its QuantTable says is far from the float model."""

    name: str
    scheme: str
    sqnr_db: float
    reason: str


class WorstFrame(DocumentPart):
    clip: int
    frame: int
    psnr_db: float


class Quality(DocumentPart):
    """How far a bundle is from the reference."""

    steps: list[StepError]
    blocks: list[BlockError]
    drift: list[Drift]
    chunks: list[ChunkError] = []
    """Of a causal model, from the first to the last."""
    videos: list[dict[str, float]]
    """By clip: metric → value, as `metrics.video` names them, `cosine` of the final latents, and `prompt_agreement`,
    from 0 to 1, where the model card names a detector and the prompt something that this one knows.
    """
    summary: dict[str, Estimate]
    """By metric, and `velocity_error`, the mean of `steps` of each guided velocity; of a causal model also
    `chunk_velocity_error`, `chunk_sqnr_db` and `chunk_psnr_db`, of the chunk of each clip that is furthest off.
    """
    invariants: list[Invariant]
    worst_layers: list[WorstLayer]
    worst_frames: list[WorstFrame]


class Times(DocumentPart):
    """Of one phase, in the order of rounds."""

    seconds: list[float]
    median: float
    low: float
    """The 10th percentile."""
    high: float
    """The 90th percentile."""


class MemoryPoint(DocumentPart):
    seconds: float
    rss_bytes: int
    phase: str


class Speed(DocumentPart):
    """What a bundle takes. Phases: open, first_step, text, `step denoiser_high`, `step denoiser_low`, switch, decode,
    encode, first_frame, total. A causal model makes chunks while earlier ones are decoded; denoise is all of them, and
    first_chunk, early_chunk (the second one) and late_chunk (the last but one) are chunks with their clean passes.
    """

    phases: dict[str, Times]
    videos_per_hour: float
    frames_per_second: float | None = None
    """From the prompt to the file."""
    denoised_frames_per_second: float | None = None
    """Of a causal model: frames of the video by what making their latents takes."""
    session_bytes: int | None = None
    """Keys and values that a causal model keeps of one video."""
    peak_rss_bytes: int
    memory: list[MemoryPoint] = []


class Ratio(DocumentPart):
    """How many times as long a phase of a bundle takes as the baseline's, in pairs of the same round."""

    phase: str
    ratio: float
    low: float
    high: float
    """Bounds of the median with 95 %."""
    pairs: int


class LayerGroup(DocumentPart):
    """Linears at the same place of every block, inside a step of one branch: what they take, and how they compute.

    Of the baseline the same, where there is one whose engines say it.
    """

    expert: str
    group: str
    scheme: str
    seconds: float
    baseline_scheme: str | None
    baseline_seconds: float | None


class Media(DocumentPart):
    """Files of one clip beside the document: paths relative to it."""

    video: MediaPath
    strip: MediaPath
    """Frames from left to right; of a bundle those of the reference, its own, and eight times the difference."""


class ExternalScores(DocumentPart):
    """What a scorer outside of wanc has said of a bundle's videos; it is believed as it stands."""

    source: str
    """The name of its file."""
    sha256: str
    dimensions: dict[str, float]
    """From 0 to 1."""
    mean_percent: float
    """Of all dimensions alike."""


class ReportedBundle(DocumentPart):
    """One bundle."""

    name: str
    recipe: str
    facts: Facts
    quality: Quality | None = None
    speed: Speed | None = None
    ratios: list[Ratio] = []
    """To the baseline."""
    groups: list[LayerGroup] = []
    """Where one of the two is quantised."""
    media: list[Media] = []
    """By clip."""
    external: ExternalScores | None = None
    failure: str | None = None
    """Why there is nothing of it."""


class Floor(DocumentPart):
    """What a change of one unit in the last place of the reference does: the least that means anything.

    `unit` is of which format that place is. `draws` are so many changes, each another number of another layer. The
    `prompt_agreement` of a floor is 1 less how far that of the changed reference is from the unchanged one's.
    """

    unit: Literal["fp32", "bf16"]
    draws: int
    velocity_error: float
    drift: list[Drift]
    chunks: list[ChunkError] = []
    summary: dict[str, Estimate]
    """By metric, as of `Quality`: between the reference and its changed selves."""


class ReportedReference(DocumentPart):
    """What all are held against: the untouched model in float32, on this machine."""

    model: str
    width: int
    height: int
    frames: int
    fps: int
    steps: int
    solver: str
    chunks: str | None = None
    """How videos of a causal model are divided, and how far back each chunk sees: all in float32."""
    key: str
    """The store's."""
    floors: list[Floor]
    detector: str | None = None
    """What `prompt_agreement` is measured with; None where the model card names nothing that wanc knows."""
    prompt_agreement: Estimate | None = None
    """Its own, over the clips whose prompts name something that the detector knows."""
    media: list[Media] = []


class Cohort(DocumentPart):
    """Times of two reports are compared only where all of this is the same."""

    processor: str
    cores: int
    features: list[str]
    tools: dict[str, str]
    threads: int


class GateResult(DocumentPart):
    """A demand, and what came of it."""

    name: str
    bundle: str
    demand: str
    """As in the recipe, such as `>= 30` or `<= 3 floors`."""
    kind: Literal["quality", "speed", "size", "exact"]
    value: float | None
    bound: float | None
    """What the demand comes to, in the unit of the value."""
    unit: str
    outcome: Outcome
    reason: str


class Cause(DocumentPart):
    """Where a change begins: the first layer, stage or phase that is not what it was."""

    kind: Literal["layer", "block", "expert", "guidance", "stage", "phase"]
    name: str
    detail: str


class Verdict(DocumentPart):
    outcome: Outcome
    summary: str
    """One sentence."""
    cause: Cause | None = None


class TrendPoint(DocumentPart):
    """A bundle that was reported on before, oldest first."""

    id: str
    name: str
    time: str
    """UTC, ISO 8601."""
    outcome: Outcome
    values: dict[str, float]


class ReportDocument(DocumentPart):
    """The whole of it. `bundles` begin with the new one."""

    format: Literal["wanc.report/1.0"] = SCHEMA
    title: str
    wanc: str
    verdict: Verdict
    reference: ReportedReference | None
    clips: list[Clip]
    baseline: str | None
    machine: Cohort
    bundles: list[ReportedBundle]
    gates: list[GateResult]
    trend: list[TrendPoint] = []
    notes: list[str] = []
    """What a reader has to know to read the figures rightly, such as how many scales MS-SSIM has here."""

    @property
    def exit_code(self) -> int:
        """That of a command which made it."""
        return EXIT_CODES[self.verdict.outcome]


def text(report: DocumentPart) -> str:
    """The document as JSON: keys in order, two spaces, a newline at the end. Equal reports give equal texts."""
    values = report.model_dump(mode="json")
    return json.dumps(values, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True) + "\n"


def read(path: Path) -> ReportDocument:
    """The document in a file of at most 16 MiB.

    Raises UserError where it cannot be read, is not JSON as `strict_json` has it, or is no report of this format.
    """
    where = str(path)
    with opened_input(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        values = parse_object(file.read(MAX_BYTES + 1), where=where).values
    if values.get("format") != SCHEMA:
        told = f"its format is {ascii(values.get('format'))[:80]}, and this wanc reads {SCHEMA}"
        raise UserError(told, where=where, hint="write it again with this wanc", exit_code=EXIT_DATA)
    try:
        return ReportDocument.model_validate(values, strict=True)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=False)
        place = ".".join(map(str, first["loc"]))
        more = f", and {len(others)} more faults" if others else ""
        raise UserError(f"{place}: {first['msg']}{more}", where=where, exit_code=EXIT_DATA) from None
