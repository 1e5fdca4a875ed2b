"""Keep patterns: by which names a recipe leaves Linears in float, and that none of them is misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from wanc.errors import RecipeError

KEY = "quantize.keep.patterns"
MOST_SHOWN = 3


def fits(pattern: str, component: str, name: str) -> bool:
    """Whether a keep pattern fits a module, or one that it lies in.

    A pattern is a glob over `<component>/<module path>`, with or without the component in front.
    """
    return any(
        fnmatchcase(path, pattern) or fnmatchcase(f"{component}/{path}", pattern) for path in _with_parents(name)
    )


def unmatched(modules: Mapping[str, Iterable[str]], patterns: Sequence[str]) -> list[str]:
    """The patterns that fit no module; `modules` are the paths of each component's."""
    names = [(component, path) for component, paths in modules.items() for path in paths]
    return [pattern for pattern in patterns if not any(fits(pattern, *name) for name in names)]


def check_patterns(parameters: Mapping[str, Iterable[str]], patterns: Sequence[str]) -> None:
    """Raises RecipeError for a pattern that fits no module with a weight; `parameters` are those of each component."""
    modules = {
        component: dict.fromkeys(path for name in names if (path := name.rpartition(".")[0]))
        for component, names in parameters.items()
    }
    for pattern in unmatched(modules, patterns):
        raise RecipeError(
            f"{KEY}: {pattern} fits no module of {' or '.join(modules)}",
            key=f"{KEY}.{patterns.index(pattern)}",
            hint=_hint(pattern, modules),
        )


def _hint(pattern: str, modules: Mapping[str, Iterable[str]]) -> str:
    component, _, _ = pattern.rpartition("/")
    front = f"{component}/" if component else ""
    paths = [path for names in modules.values() for name in names for path in _with_parents(name)]
    candidates = dict.fromkeys(f"{front}{path}" for path in paths)
    if component and component not in modules:
        candidates = dict.fromkeys(f"{name}/{path}" for name in modules for path in paths)
    near = get_close_matches(pattern, candidates, MOST_SHOWN)
    return f"did you mean {' or '.join(near)}?" if near else f"patterns are globs over modules, such as {paths[-1]}"


def _with_parents(name: str) -> list[str]:
    """The path of a module, and of all that it lies in."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
