"""Captions of scenes, as full sentences in English and in Chinese."""

from __future__ import annotations

import numpy as np

from wanc.report.detectors.drawn_shapes import Attributes
from wanc.report.detectors.shape_words import WORDS

LANGUAGES = ("en", "zh")

# In English some sentences want "to the left" and others "leftwards"; up and down have no "to the" form.
_TOWARDS = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "en": (
        "A {colour} {shape} moves {direction}.",
        "A {colour} {shape} moves {towards}.",
        "A {colour} {shape} is sliding {towards} on a dark background.",
        "The {shape} is {colour} and it moves {direction}.",
        "The video shows a {colour} {shape} that slides {direction}.",
        "On a dark background, a {colour} {shape} drifts {towards}.",
        "Moving {direction}, a {shape} in {colour} crosses the picture.",
        "There is a {shape} of {colour} colour, and it drifts slowly {towards}.",
    ),
    "zh": (
        "一个{colour}的{shape}向{direction}移动。",
        "一个{colour}{shape}正在向{direction}滑动。",
        "在深色背景上，一个{colour}的{shape}向{direction}移动。",
        "这个{shape}是{colour}的，它向{direction}移动。",
        "视频中有一个{colour}的{shape}，它慢慢地向{direction}滑动。",
        "画面里的{colour}{shape}往{direction}移动。",
        "向{direction}移动的是一个{colour}的{shape}。",
        "深色的画面中，{colour}的{shape}正往{direction}边滑动。",
    ),
}


def caption(attributes: Attributes, language: str, template: int) -> str:
    """The sentence number ``template`` about ``attributes``."""
    words = WORDS[language]
    return TEMPLATES[language][template].format(
        shape=words[attributes.shape],
        colour=words[attributes.colour],
        direction=words[attributes.direction],
        towards=_TOWARDS[attributes.direction],
    )


def spellings(sentence: str) -> tuple[str, ...]:
    """How people may type the sentence: as it is, in small letters, and without the final mark."""
    return sentence, sentence.lower(), sentence[:-1], sentence[:-1].lower()


def random_caption(attributes: Attributes, random: np.random.Generator) -> str:
    """A sentence in a random language and phrasing, mostly well spelt."""
    language = LANGUAGES[random.integers(len(LANGUAGES))]
    variants = spellings(caption(attributes, language, int(random.integers(len(TEMPLATES[language])))))
    return variants[random.choice(len(variants), p=(0.7, 0.1, 0.1, 0.1))]
