"""What a checkpoint says and wanc does not do: each such thing is a doubt, until the recipe allows it by its name.

A key of a configuration is read, or stands at the default of its class, or is a doubt. So a model with an option that
wanc has never heard of is not built as if it had none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wanc.errors import CheckpointError
from wanc.models.wan.class_defaults import DEFAULTS, WITHOUT_EFFECT
from wanc.models.wan.configuration import Config, Field, shown

_LONGEST_KEY = 60
# As many further doubts as fit on a screen without scrolling the first one away.
_SHOWN = 4


@dataclass(frozen=True)
class Doubt:
    """`name` is what `model.allow` calls it, `where` the file that says it."""

    name: str
    message: str
    where: str


def refuse(doubts: Iterable[Doubt], allowed: Collection[str]) -> None:
    """Raises CheckpointError for those that are not allowed by their name: the first in full, others below it."""
    found = [doubt for doubt in doubts if doubt.name not in allowed]
    if not found:
        return
    first, *others = found
    lines = [first.message, *(f"  also {other.where}: {other.message}" for other in others[:_SHOWN])]
    names = ", ".join(dict.fromkeys(doubt.name for doubt in found[: _SHOWN + 1]))
    raise CheckpointError(
        "\n".join([*lines, *(["  and more"] if len(others) > _SHOWN else [])]),
        where=first.where,
        hint=f"if the model can do without, let it pass: `allow: [{names}]` under model",
    )


def unread_keys(class_name: str, document: Config, read: Collection[str], where: str) -> list[Doubt]:
    """The keys that are neither among those `read` nor at the default of the class; `where` names the document.

    What begins with an underscore says who wrote the file, and with which version.
    """
    defaults, without_effect = DEFAULTS.get(class_name, {}), WITHOUT_EFFECT.get(class_name, frozenset())
    doubts: list[Doubt] = []
    for key, value in document.items():
        if key in read or key in without_effect or key.startswith("_"):
            continue
        if key not in defaults:
            message = f"{_name(key)} is {shown(value)}, and wanc does not know this key: it may change the model"
            doubts.append(Doubt(_name(key), message, where))
        elif not _same(value, defaults[key]):
            message = f"{key} is {shown(value)}; wanc builds {shown(defaults[key])} alone, as {class_name} has it"
            doubts.append(Doubt(key, message, where))
    return doubts


def wrong_values(fields: Mapping[str, Field], document: Config, where: str) -> list[Doubt]:
    """The values that are not as these fields have to be, those that the document leaves to the default included."""
    doubts: list[Doubt] = []
    for key, field in fields.items():
        value = document.get(key, field.default)
        if not field.holds(value):
            told = shown(value) if key in document else f"not given, which means {shown(value)}"
            doubts.append(Doubt(key, f"{key} is {told}; it must be {field.must_be}", where))
    return doubts


def _same(value: object, default: Any) -> bool:
    # To Python, true is equal to 1.
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _name(key: str) -> str:
    """A key as a recipe can write it: of one line, and printable."""
    text = json.dumps(key)[1:-1]
    return text if len(text) <= _LONGEST_KEY else f"{text[:_LONGEST_KEY]}…"
