"""Several faults of a recipe, reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wanc.errors import NotBuiltYetError, RecipeError, UserError

# As many further faults as fit on a screen without scrolling the first one away.
_SHOWN = 5
# More than anyone reads; a file with thousands of faults must not take seconds to refuse.
MOST_EXPLAINED = 20


@dataclass(frozen=True)
class RecipeProblem:
    """One fault: what is wrong, where, and what to do about it."""

    message: str
    where: str
    hint: str | None = None
    not_built: bool = False
    """The recipe is right, and wanc cannot do it yet."""
    is_missing: bool = False
    """Something is not there: often because of a typing error, which is to be told first."""


def in_order(problems: Iterable[RecipeProblem]) -> list[RecipeProblem]:
    """Each problem once, for the variants of a matrix share most of their lines; what is missing comes last."""
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.is_missing)


def as_error(problems: Sequence[RecipeProblem]) -> RecipeError:
    """One error for all `problems` (at least one): the first in full, the others as lines below it.

    It is a `NotBuiltYetError` if nothing else is wrong with the recipe.
    """
    first, *others = in_order(problems)
    lines = [first.message]
    lines += [f"  also {other.where}: {other.message}{_in_brackets(other.hint)}" for other in others[:_SHOWN]]
    if len(others) > _SHOWN:
        lines.append("  and more")
    kind = NotBuiltYetError if all(problem.not_built for problem in problems) else RecipeError
    return kind("\n".join(lines), where=first.where, hint=first.hint)


def together(faults: Sequence[UserError]) -> UserError:
    """The first fault, with the others as lines below it."""
    first, *others = faults
    lines = [f"  also {other}{_in_brackets(other.hint)}" for other in others[:_SHOWN]]
    first.message = "\n".join([first.message, *lines, *(["  and more"] if len(others) > _SHOWN else [])])
    return first


def _in_brackets(hint: str | None) -> str:
    return f" ({hint})" if hint else ""
