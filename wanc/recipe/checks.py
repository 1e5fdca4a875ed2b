"""Checks of single values that a type cannot express, with messages that say what would go wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeVar, cast

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from wanc.runtime.byte_size import EXAMPLES, size_with_unit
from wanc.runtime.prompts import prompt_fault
from wanc.runtime.video_limits import LARGEST_SIDE, MOST_FRAMES

T = TypeVar("T")

# What ONNX's tools take for the size of one dimension.
LARGEST_SIZE = 2**31 - 1

FAULT = "wanc"
# What pydantic calls the kinds of a value on the way to a fault of it; no key can be called that.
WORD, LIST, MAPPING = KINDS = ("\0word", "\0list", "\0mapping")
_DIMENSION = re.compile(r"([1-9][0-9]{0,8}\*)?[A-Za-z_][A-Za-z0-9_]{0,63}")


def fault(
    message: str, hint: str, at: tuple[str | int, ...] = (), *, without: tuple[str, ...] = ()
) -> PydanticCustomError:
    """What a check raises; `at` leads from the checked value to the guilty part of it.

    `without` are keys of the value of which one is wanted: where a null took one away, that is the place.
    """
    return PydanticCustomError(FAULT, "{message}", {"message": message, "hint": hint, "at": at, "without": without})


def whole_number(value: object) -> object:
    """Refuses `true` and `1.0`, which are equal to 1 in Python."""
    if type(value) is not int:
        raise fault("it has to be a whole number", "1 is the only value today")
    return value


def not_empty(value: object) -> object:
    """Refuses an empty text, which as a path would mean the folder that the recipe is in."""
    if value == "":
        raise fault("the path is empty", "name a file or a folder")
    return value


def without_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    """Refuses a list that names something twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise fault(f"{value} stands twice", "name each once", (index,))
    return values


def word_or_list(value: object) -> str:
    """Which of the two a value is to be that is the word default or a list: only the list can be wrong."""
    return WORD if value == "default" else LIST


def word_or_mapping(value: object) -> str:
    """Which of the two a value is to be: what is no mapping is told which words there are."""
    return MAPPING if isinstance(value, Mapping | BaseModel) else WORD


def dimension(value: object) -> object:
    """Refuses a size of an input that is neither a number of entries nor a name for one."""
    is_number = type(value) is int and 0 <= value <= LARGEST_SIZE
    if not is_number and not (isinstance(value, str) and _DIMENSION.fullmatch(value)):
        raise fault("a size has to be a whole number, a name or a multiple of a name", "such as 3, tokens or 16*rows")
    return value


def byte_count(value: object) -> object:
    """A number of bytes, which may be written with a unit: 8GiB. Refuses what is none."""
    if isinstance(value, str) and (size := size_with_unit(value)):
        return size
    if type(value) is not int or value < 1:
        raise fault("a size in bytes has to be a whole number, or one with a unit", EXAMPLES)
    return value


def alpha(value: object) -> object:
    """Refuses a strength of smoothing that is neither a share nor one of the words."""
    is_share = type(value) in (int, float) and 0 <= cast(float, value) <= 1
    if not is_share and value not in ("search", "none"):
        hint = "search tries several for each input, and none leaves activations as they are"
        raise fault("it has to be search, none or a number from 0 to 1", hint)
    return value


def multiple_of_16(pixels: int) -> int:
    """Refuses a height or width that is no whole number of tokens."""
    if rest := pixels % 16:
        raise fault(
            f"{pixels} is not a multiple of 16: {rest} pixels would be left over, because the VAE makes one point "
            "of 8 x 8 pixels, and the denoiser one token of 2 x 2 points",
            _nearest(pixels - rest, 16, LARGEST_SIDE),
        )
    return pixels


def four_n_plus_one(frames: int) -> int:
    """Refuses a number of frames that no number of latent frames decodes to."""
    if rest := (frames - 1) % 4:
        raise fault(
            f"{frames} is not 4n + 1: no number of latent frames decodes to it, because the first makes one frame "
            "and each later one four",
            _nearest(frames - rest, 4, MOST_FRAMES),
        )
    return frames


def short_enough(prompt: str) -> str:
    """Refuses a prompt that no bundle would take."""
    if too_long := prompt_fault(prompt):
        raise fault(f"the prompt {too_long}", "write a shorter one: a text encoder looks at some hundred words")
    return prompt


def falling(timesteps: tuple[float, ...]) -> tuple[float, ...]:
    """Refuses timesteps that do not go from noise to video."""
    for index, (earlier, later) in enumerate(pairwise(timesteps), start=1):
        if later >= earlier:
            message = f"{later:g} does not fall below {earlier:g}, the one before it"
            raise fault(message, "order them from noise to video, such as [1000, 750, 500, 250]", (index,))
    return timesteps


def _nearest(below: int, step: int, largest: int) -> str:
    above = below + step
    return f"the nearest are {below} and {above}" if above <= largest else f"the nearest is {below}"
