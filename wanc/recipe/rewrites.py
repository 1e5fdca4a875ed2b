"""What to write in place of a value: a guess at what was meant, which the schema has to accept before it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from wanc.recipe import show
from wanc.recipe.fields import section_at, type_at
from wanc.recipe.section import Section
from wanc.recipe.tree import KeyPath

_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?")
# Not kHz, GB, minutes or s, where the number alone would mean something else.
_WITH_UNIT = re.compile(rf"({_NUMBER.pattern})\s*(?![kKMGT]|[mu][A-Za-z]|s$|sec|h$|hour)[A-Za-z]+")
_SWITCHES = {"yes": True, "on": True, "y": True, "true": True, "no": False, "off": False, "n": False, "false": False}
_LONGEST = 200


def rewritten(path: KeyPath, value: object) -> str | None:
    """The value at `path` in one line as it should be written; None where nothing near it would be accepted."""
    expected = type_at(path)
    if expected is None or (isinstance(value, str) and len(value) > _LONGEST):
        return None
    section = section_at(path)
    adapter = TypeAdapter[Any](expected, config=None if section else ConfigDict(strict=True))  # sections bring theirs
    accepted = (guess for guess in _guesses(value, section) if _is_accepted(adapter, guess))
    found = next(accepted, None)
    return None if found is None else show.flow(found)


def without_unit(value: object) -> bool:
    """Whether the value is a number with a unit behind it, such as 480p."""
    return isinstance(value, str) and _WITH_UNIT.fullmatch(value) is not None


def _is_accepted(adapter: TypeAdapter[Any], guess: object) -> bool:
    try:
        adapter.validate_python(guess)
    except ValidationError as error:
        # What a section asks for besides is told when that is there.
        return isinstance(guess, dict) and all(details["type"] == "wanc" for details in error.errors())
    return True


def _guesses(value: object, section: type[Section] | None) -> Iterator[object]:
    if isinstance(value, str):
        yield from _read_as_other(value)
    if isinstance(value, float) and value.is_integer():
        yield int(value)
    if isinstance(value, tuple) and len(cast("tuple[object, ...]", value)) == 1:
        yield cast("tuple[object, ...]", value)[0]
    if section is not None and not isinstance(value, dict):
        needed = [name for name, field in section.model_fields.items() if field.is_required()]
        whole = [dict.fromkeys(needed, value)] if needed else [{name: value} for name in section.model_fields]
        yield from whole
        yield from ((one,) for one in whole)
    if not isinstance(value, tuple):
        yield (value,)


def _read_as_other(text: str) -> Iterator[object]:
    text = text.rstrip(",; ")
    number = _WITH_UNIT.fullmatch(text) or _NUMBER.fullmatch(text)
    if number is not None:
        read = float((_NUMBER.match(text) or number)[0].replace(",", "."))
        yield from [read, int(read)] if read.is_integer() else [read]
    if text.casefold() in _SWITCHES:
        yield _SWITCHES[text.casefold()]
    yield text.strip().casefold()
    yield text.strip().replace(" ", "-")
    yield text.removeprefix("v")
