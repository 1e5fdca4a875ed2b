"""The held-out prompts, and how generated clips are scored against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanc.report.detectors.drawn_shapes import Attributes
from wanc.report.detectors.moving_shapes import detect

from .captions import LANGUAGES, TEMPLATES, caption
from .configuration import LATENT_SHAPE
from .scenes import HELD_OUT

FIRST_SEED = 1000

Generate = Callable[[str, int], NDArray[np.uint8]]
"""(prompt, seed) to uint8 [frames, height, width, 3]."""

GenerateChanged = Callable[[str, str, int], NDArray[np.uint8]]
"""(prompt, later prompt, seed) to the same."""


@dataclass(frozen=True)
class Case:
    """One prompt about a combination that no training step has seen, with the seed of its noise."""

    attributes: Attributes
    language: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Answer:
    """A case, and what the detector found in the clip that was generated for it."""

    case: Case
    found: Attributes


def cases(count: int) -> list[Case]:
    """``count`` cases, every second one in Chinese, that go through all held-out combinations and phrasings evenly."""
    result = []
    for index in range(count):
        language = LANGUAGES[index % len(LANGUAGES)]
        turn = index // len(LANGUAGES)
        attributes = HELD_OUT[turn % len(HELD_OUT)]
        template = (turn + turn // len(HELD_OUT)) % len(TEMPLATES[language])
        result.append(Case(attributes, language, caption(attributes, language, template), FIRST_SEED + index))
    return result


def noise(seed: int) -> NDArray[np.float32]:
    """The starting noise of a seed, the same for every way to run the model: float32 [1, 16, 5, 8, 8]."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal((1, *LATENT_SHAPE), dtype=np.float32)


def answer(generate: Generate, chosen: list[Case], *, goes_round: bool = False) -> Iterator[Answer]:
    """Generate and read one clip after the other; in long ones the shape ``goes_round``."""
    for case in chosen:
        yield Answer(case, detect(generate(case.prompt, case.seed), goes_round=goes_round))


def changed_cases(count: int) -> list[tuple[Case, Case]]:
    """``count`` cases, however few, from all held-out combinations; each with the next one, round and round, that is
    about another shape, colour and direction.
    """
    every = cases(max(count, len(LANGUAGES) * len(HELD_OUT)))
    found = []
    for index in range(0, len(every), len(every) // count)[:count]:
        case, others = every[index], every[index + 1 :] + every[:index]
        found.append((case, next(one for one in others if not set(one.attributes) & set(case.attributes))))
    return found


def answer_changed(
    generate: GenerateChanged, chosen: list[tuple[Case, Case]], first: int
) -> Iterator[tuple[Answer, Answer, Answer]]:
    """Clips whose prompt becomes another one at frame number `first`: what is seen before it, what from it on, and the
    latter scored against the prompt that no longer holds.
    """
    for case, other in chosen:
        frames = generate(case.prompt, other.prompt, case.seed)
        before, after = (detect(part, goes_round=True) for part in (frames[:first], frames[first:]))
        yield Answer(case, before), Answer(other, after), Answer(case, after)


def agreement(answers: list[Answer]) -> dict[str, float]:
    """The share of clips, 0 to 1, that show what their prompt says, for each attribute."""
    return {
        name: float(np.mean([getattr(each.found, name) == getattr(each.case.attributes, name) for each in answers]))
        for name in Attributes._fields
    }


def shuffled(answers: list[Answer]) -> list[Answer]:
    """Score each clip against the prompt of another one: what agreement by chance looks like.

    A fixed permutation, so that the figure is the same in every run.
    """
    order = np.random.default_rng(7).permutation(len(answers))
    return [Answer(answers[other].case, each.found) for each, other in zip(answers, order, strict=True)]
