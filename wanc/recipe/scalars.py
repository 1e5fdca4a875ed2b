"""Unquoted YAML text to values, by the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema).

PyYAML follows YAML 1.1, where `no` is false, `12:30:00` is 45000 and `1e5` is text.
"""

from __future__ import annotations

import math
import re

from wanc.recipe.tree import Scalar

# A recipe ends up in canonical JSON, whose readers keep integers exactly up to here.
LARGEST_INTEGER = 2**53

_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"(?P<sign>[-+]?)0*(?P<decimal>[0-9]+)|0o0*(?P<octal>[0-7]+)|0x0*(?P<hexadecimal>[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BASES = {"decimal": 10, "octal": 8, "hexadecimal": 16}


def resolve(text: str) -> Scalar:
    """The value that unquoted `text` stands for.

    Raises:
        ValueError: a number that is not finite, or an integer that JSON would not keep exactly.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if match := _INTEGER.fullmatch(text):
        return _integer(match)
    if _FLOAT.fullmatch(text):
        return _float(text)
    return text


def is_text(text: str) -> bool:
    """Whether `text`, unquoted, would be read as text."""
    return not (text in _CONSTANTS or _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text))


def _integer(match: re.Match[str]) -> int:
    name, digits = next((name, match[name]) for name in _BASES if match[name])
    # 2^53 has 16 decimal digits; the length comes first because int() is slow, or fails, on very long numbers.
    value = int(digits, _BASES[name]) if len(digits) <= 20 else LARGEST_INTEGER + 1
    if value > LARGEST_INTEGER:
        raise ValueError("an integer beyond 2^53 cannot be kept exactly")
    return -value if match["sign"] == "-" else value


def _float(text: str) -> float:
    # Python spells the special values without the dot.
    value = float(text) if any(letter.isdecimal() for letter in text) else math.inf
    if not math.isfinite(value):
        raise ValueError("a number has to be finite")
    return value
