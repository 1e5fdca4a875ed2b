"""Replaying a bundle's golden inputs: does this machine compute what the machine that built the bundle computed?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from .budget import MemoryFacts
from .bundle import Bundle
from .bundle_executor import executor_of
from .check_golden import tolerances
from .golden import EXPECTED, FOLDER, INPUTS, named
from .model import ENCODE, TEXT_ENCODER
from .options import VIDEO, RunLimits
from .progress import OnProgress, ignore
from .safetensors import SafetensorsFile

TEXT = (f"{TEXT_ENCODER}/tokenizer", f"{TEXT_ENCODER}/embedding")
"""What is checked before the graphs, where there are prompts."""


@dataclass(frozen=True)
class Check:
    """One graph: the largest relative error ‖out − expected‖ / ‖expected‖ of its outputs, and what is allowed.

    What stands before a text encoder's graph is one as well, and exact or infinitely wrong.
    """

    graph: str
    relative_error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.relative_error <= self.tolerance


def selftest(bundle: Bundle, *, on_progress: OnProgress = ignore, **limits: Unpack[RunLimits]) -> list[Check]:
    """Execute every graph on its golden inputs, which are small. Raises BundleError where the record cannot be read."""
    executor = executor_of(bundle, planned=_planned(bundle), **limits)
    inputs, expected = (bundle.folder.read(f"{FOLDER}/{name}", SafetensorsFile) for name in (INPUTS, EXPECTED))
    checks = prompt_checks(bundle, named(inputs, TEXT_ENCODER, ENCODE)) if bundle.task == VIDEO else []
    on_progress("selftest", 0, len(bundle.engines))
    for (component, graph), tolerance in tolerances(bundle.folder, bundle.engines).items():
        outputs = executor.run(component, graph, named(inputs, component, graph))
        executor.close(component)
        wanted = named(expected, component, graph)
        error = max((relative_error(outputs[name].numpy(), array) for name, array in wanted.items()), default=0.0)
        checks.append(Check(f"{component}/{graph}", error, tolerance))
        on_progress("selftest", sum(check.graph not in TEXT for check in checks), len(bundle.engines))
    return checks


def _planned(bundle: Bundle) -> MemoryFacts | None:
    """Imported late: a bundle of one graph does not ask for the libraries that videos take."""
    if bundle.task != VIDEO:
        return None
    from .video_bundle import VideoBundle

    return VideoBundle.of(bundle).memory


def prompt_checks(bundle: Bundle, encode: Mapping[str, NDArray[Any]]) -> list[Check]:
    """From prompts to the golden inputs of the text encoder, exactly: ids, and the embedding's rows.

    A bundle of before has no such record, and nothing of it is checked.
    """
    # Imported late: a bundle of one graph does not ask for the libraries that texts take.
    from .golden_prompts import FILE, has_rows, read_prompts
    from .text_bundle import open_text
    from .video_bundle import VideoBundle

    video = VideoBundle.of(bundle)
    tokenizer, table = open_text(video)
    if FILE not in {file.path for file in bundle.manifest.files}:
        return []
    prompts = read_prompts(bundle.folder, video.model.text_length)
    found = (all(prompt.fits(tokenizer) for prompt in prompts), has_rows(table, prompts[0], encode["embeddings"]))
    return [Check(name, 0.0 if holds else math.inf, 0.0) for name, holds in zip(TEXT, found, strict=True)]


def relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """‖actual − expected‖ / ‖expected‖, in which equal infinities do not differ.

    A NaN anywhere is an infinite error: it must not pass a comparison. So is any difference in dtype or shape, and
    between values that are no floats.
    """
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return math.inf
    if actual.dtype.kind != "f":
        return 0.0 if np.array_equal(actual, expected) else math.inf
    equal = actual == expected
    ours, theirs = (np.where(equal, 0.0, array).astype(np.float64) for array in (actual, expected))
    scale = np.linalg.norm(np.where(np.isfinite(expected), expected, 0.0).astype(np.float64))
    with np.errstate(invalid="ignore"):  # a NaN, or infinities of both signs
        error = float(np.linalg.norm(ours - theirs)) / max(float(scale), 1e-30)
    return error if math.isfinite(error) else math.inf
