"""Recipes and single values as YAML that the strict loader reads back as the same."""

from __future__ import annotations

import re
import sys
from typing import Any, cast

import yaml

from wanc.recipe import scalars
from wanc.recipe.schema import Recipe

# Written raw, these would be line ends for PyYAML, or nothing that an eye could see.
_NEEDS_ESCAPES = re.compile("[\x00-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


class _Dumper(yaml.SafeDumper):
    """Leaves text unquoted only where YAML 1.1 and 1.2 both read it as text."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        # Items of a list stand to the right of their key, as in the recipes written by hand.
        cast(Any, super()).increase_indent(flow, False)


def _represent_text(dumper: Any, text: str) -> yaml.ScalarNode:
    style = '"' if _NEEDS_ESCAPES.search(text) else None if scalars.is_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, cast(Any, _represent_text))


def to_yaml(recipe: Recipe) -> str:
    """The recipe with every default written out; loading the text gives an equal recipe."""
    return _dump(recipe.model_dump(exclude_none=True), default_flow_style=False)


def flow(value: object) -> str:
    """Any plain value in one line, as YAML would write it: `int8`, `'4'`, `[a, b]`."""
    return _dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _dump(value: object, default_flow_style: bool) -> str:
    return cast(
        str,
        cast(Any, yaml).dump(
            _listed(value),
            Dumper=_Dumper,
            default_flow_style=default_flow_style,
            sort_keys=False,
            allow_unicode=True,
            width=sys.maxsize,
        ),
    )


def _listed(value: object) -> object:
    """`value` with lists for tuples, which YAML has no word for."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in cast(dict[object, object], value).items()}
    if isinstance(value, tuple | list):
        return [_listed(item) for item in cast(tuple[object, ...], value)]
    return value
