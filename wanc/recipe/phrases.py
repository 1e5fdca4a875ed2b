"""The words in which faults of keys and values are told."""

from __future__ import annotations

from difflib import get_close_matches
from typing import cast

from wanc.recipe import planned, show
from wanc.recipe.fields import all_paths, fields_at
from wanc.recipe.problems import RecipeProblem
from wanc.recipe.tree import KeyPath

LONGEST_SHOWN = 60


def unknown_key(path: KeyPath, where: str) -> RecipeProblem:
    """What is said of a key that the schema does not have; `where` is its place."""
    owner = path[:-1]
    known = list(fields_at(owner))
    if planned.is_planned_key(path):
        subject = f"{dotted(owner)} takes" if owner else "a recipe has"
        return RecipeProblem(
            f"{dotted(path)} is not built yet; today {subject}: {', '.join(known)}", where, not_built=True
        )
    key = str(path[-1])
    subject = dotted(owner) if owner else "a recipe"
    hint = _without_colon(key, known) or did_you_mean(key, known, planned.keys_under(owner)) or _elsewhere(key)
    return RecipeProblem(f"{subject} has no key {shorten(key)}", where, hint or f"its keys are {', '.join(known)}")


def _without_colon(key: str, known: list[str]) -> str | None:
    """`{clips 6}` and `{clips:6}` are keys without a value for YAML."""
    name, value = next(((name, key.removeprefix(name)) for name in known if key.startswith(name)), ("", ""))
    value = value.lstrip(" :=")
    is_joined = bool(value) and not key.removeprefix(name)[0].isalnum() and key.removeprefix(name)[0] not in "_-"
    return f"put a colon and a blank between them: `{name}: {shorten(value)}`" if is_joined else None


def _elsewhere(key: str) -> str | None:
    places = [dotted(place) for place in all_paths() if place[-1] == key]
    return f"did you mean {places[0]}?" if len(places) == 1 else None


def did_you_mean(word: str, known: list[str], later: list[str]) -> str | None:
    """The nearest of the names that are known, or that will be; one that begins with the word is nearest."""
    word = word[:LONGEST_SHOWN].casefold()
    longer = [name for name in known if name.startswith(f"{word}-")]
    close = [word] if word in known else longer[:1] or get_close_matches(word, [*known, *later], n=1)
    if not close:
        return None
    return f"did you mean {close[0]}?" + (" (it is not built yet)" if close[0] in later else "")


def either(words: list[str]) -> str:
    """The words as a choice: `a, b or c`."""
    return " or ".join(", ".join(words).rsplit(", ", 1))


def written(value: object) -> str:
    """The beginning of a value as YAML would write it."""
    # What is shown is short, so only the beginning is worth writing.
    is_long = isinstance(value, str | tuple)
    return show.flow(cast(str, value)[: 2 * LONGEST_SHOWN] if is_long else value)


def shorten(text: str) -> str:
    """The text, cut to what a line of an error holds."""
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


def dotted(path: KeyPath) -> str:
    """The path as it is written behind --set."""
    return ".".join(map(str, path))
