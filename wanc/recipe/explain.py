"""What the schema found wrong, in words of a recipe's author and with the place in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wanc.recipe import planned
from wanc.recipe.checks import FAULT, KINDS
from wanc.recipe.fields import description, fields_at
from wanc.recipe.phrases import did_you_mean, dotted, either, shorten, unknown_key, written
from wanc.recipe.problems import MOST_EXPLAINED, RecipeProblem
from wanc.recipe.rewrites import rewritten, without_unit
from wanc.recipe.section import PATTERNS
from wanc.recipe.tree import KeyPath, Marks

# pydantic's error types → what is true of a right value. The number of a limit stands in the error's context.
_EXPECTED: Mapping[str, str] = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "path_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "string_too_long": "at most {max_length} characters long",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}


def explain(error: ValidationError, marks: Marks) -> list[RecipeProblem]:
    """What is wrong, in the order of the schema, with missing keys last: a typing error often is the reason for one."""
    faults = [details for details in error.errors(include_url=False) if not _is_echo(details)]
    faults.sort(key=lambda details: details["type"] == "missing")
    return [_problem(details, marks) for details in faults[:MOST_EXPLAINED]]


def _is_echo(details: ErrorDetails) -> bool:
    # pydantic finds a list too short when all of its items were wrong, which has then been said.
    return details["type"] == "too_short" and len(details["input"]) >= _context(details)["min_length"]


def _problem(details: ErrorDetails, marks: Marks) -> RecipeProblem:
    describe = _DESCRIBERS.get(details["type"], _wrong_value)
    return describe(tuple(key for key in details["loc"] if key not in KINDS), details, marks)


def _missing(path: KeyPath, _: ErrorDetails, marks: Marks) -> RecipeProblem:
    # A key with nothing behind it is in the text, and its default would count, if it had one.
    verdict = "has no value" if path in marks.by_path else "is missing"
    hint = description(path)
    if path[:-1] in marks.replaced:
        owner = dotted(path[:-1])
        given = next((key for key in fields_at(path[:-1]) if (*path[:-1], key) in marks.by_path), "…")
        hint = f"this replaces all of {owner}; to change one value of it, name that alone: {owner}.{given}"
    return RecipeProblem(f"{dotted(path)} {verdict}", marks.mark(path).key, hint, is_missing=True)


def _unknown_key(path: KeyPath, _: ErrorDetails, marks: Marks) -> RecipeProblem:
    return unknown_key(path, marks.mark(path).key)


def _not_accepted(path: KeyPath, details: ErrorDetails, marks: Marks) -> RecipeProblem:
    """A value that is none of those that can be honoured today."""
    where, found = marks.mark(path).value, written(details["input"])
    accepted = _accepted(details)
    if planned.is_planned_value(path, found):
        message = f"{dotted(path)}: {shorten(found)} is not built yet; today wanc builds: {', '.join(accepted)}"
        return RecipeProblem(message, where, not_built=True)
    message = f"{dotted(path)} cannot be {shorten(found)}"
    hint = did_you_mean(str(details["input"]), accepted, planned.values_at(path))
    if not isinstance(details["input"], str) and (better := rewritten(path, details["input"])):
        hint = f"write {better}"
    return RecipeProblem(message, where, hint or f"it can be {either(accepted)}")


def _bad_pattern(path: KeyPath, details: ErrorDetails, marks: Marks) -> RecipeProblem:
    message = f"{dotted(path)} cannot be {shorten(written(details['input']))}"
    hint = f"it has to be {PATTERNS[_context(details)['pattern']]}"
    better = rewritten(path, details["input"])
    return RecipeProblem(message, marks.mark(path).value, f"{hint}; write {better}" if better else hint)


def _too_long(path: KeyPath, details: ErrorDetails, marks: Marks) -> RecipeProblem:
    is_planned = planned.is_planned_value(path, written(details["input"]))
    describe = _not_accepted if is_planned else _wrong_value
    return describe(path, details, marks)


def _checked(path: KeyPath, details: ErrorDetails, marks: Marks) -> RecipeProblem:
    """A fault of our own checks, which bring their words along."""
    context = _context(details)
    path = (*path, *cast(KeyPath, context["at"]))
    subject = f"{dotted(path)}: " if path else ""
    removed = [(*path, key) for key in context["without"] if (*path, key) in marks.by_path]
    if removed:
        hint = f"{dotted(removed[0])} is null here, which takes away what was said before: give it a value"
        return RecipeProblem(f"{subject}{context['message']}", marks.mark(removed[0]).key, hint)
    return RecipeProblem(f"{subject}{context['message']}", marks.mark(path).value, context["hint"])


def _wrong_value(path: KeyPath, details: ErrorDetails, marks: Marks) -> RecipeProblem:
    if details["type"] not in _EXPECTED:
        return RecipeProblem(f"{dotted(path)}: {details['msg']}", marks.mark(path).value, description(path))
    expected = _EXPECTED[details["type"]].format(**_numbers(details))
    message = f"{dotted(path) or 'a recipe'} has to be {expected}, not {_kind(details['input'])}"
    return RecipeProblem(message, marks.mark(path).value, _how_to_write(path, expected, details["input"]))


def _how_to_write(path: KeyPath, expected: str, value: object) -> str | None:
    meaning = description(path)
    if better := rewritten(path, value):
        return f"write the number alone, {better}: {meaning}" if without_unit(value) else f"write {better}"
    if expected == "text" and not isinstance(value, tuple | dict):
        return "put it in quotes"
    is_item = bool(path) and isinstance(path[-1], int)
    return f"its keys are {', '.join(fields_at(path))}" if is_item and expected == "a mapping" else meaning


_DESCRIBERS: Mapping[str, Callable[[KeyPath, ErrorDetails, Marks], RecipeProblem]] = {
    "missing": _missing,
    "extra_forbidden": _unknown_key,
    "literal_error": _not_accepted,
    "string_pattern_mismatch": _bad_pattern,
    "too_long": _too_long,
    FAULT: _checked,
}


def _accepted(details: ErrorDetails) -> list[str]:
    if details["type"] == "too_long":
        return [f"at most {_context(details)['max_length']}"]
    # pydantic writes the choices as Python: 'a', 'b' or 'c'.
    return _context(details)["expected"].replace(" or ", ", ").replace("'", "").split(", ")


def _numbers(details: ErrorDetails) -> dict[str, object]:
    return {name: f"{value:g}" if isinstance(value, float) else value for name, value in _context(details).items()}


def _context(details: ErrorDetails) -> dict[str, Any]:
    return details.get("ctx", {})


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return "an empty list" if not value else f"a list of {len(cast(tuple[object, ...], value))}"
    if isinstance(value, dict):
        return "a mapping"
    kinds: dict[type, str] = {str: "the text ", int: "the number ", float: "the number "}
    return kinds.get(type(value), "") + shorten(written(value))
