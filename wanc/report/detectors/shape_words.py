"""The words for what tiny-wan draws, in English and in Chinese, and which of them a prompt has."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wanc.report.detectors.drawn_shapes import COLOURS, DIRECTIONS, SHAPES

WORDS: dict[str, dict[str, str]] = {
    "en": {word: word for word in (*SHAPES, *COLOURS, *DIRECTIONS)},
    "zh": {
        "circle": "圆形",
        "square": "正方形",
        "triangle": "三角形",
        "cross": "十字形",
        "red": "红色",
        "green": "绿色",
        "blue": "蓝色",
        "yellow": "黄色",
        "purple": "紫色",
        "cyan": "青色",
        "left": "左",
        "right": "右",
        "up": "上",
        "down": "下",
    },
}


def _pattern(value: str) -> re.Pattern[str]:
    """Whole words in English, where what crosses a picture is no cross. In Chinese a direction follows a word for
    "towards": 上 alone says "on" as well.
    """
    towards = "(?<=[向往朝])" if value in DIRECTIONS else ""
    return re.compile(f"(?<![a-z]){WORDS['en'][value]}(?:wards?)?(?![a-z])|{towards}{WORDS['zh'][value]}")


_PATTERNS: Mapping[str, re.Pattern[str]] = {value: _pattern(value) for value in WORDS["en"]}


def named(prompt: str) -> frozenset[str]:
    """The shapes, colours and directions that a prompt names, by their English words."""
    text = prompt.casefold()
    return frozenset(value for value, pattern in _PATTERNS.items() if pattern.search(text))
