"""JSON from untrusted files: bounded, unambiguous, and finite.

The standard parser accepts duplicate keys, NaN and integers of any length. What is read here means the same to every
reader: RFC 8259 text in UTF-8, read into values that also survive RFC 8785 canonicalisation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NoReturn, TypeAlias, cast

from .errors import BundleError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 32
MAX_VALUES = 1_000_000  # a manifest of the most files has 700,000; 16 MiB of "[[],[],…" would take a gigabyte
MAX_INTEGER = 2**53  # beyond it, readers that use doubles see another number


def parse(data: bytes, *, where: str, max_bytes: int = MAX_BYTES) -> JsonValue:
    """The value of one JSON text.

    `where` names the text in errors. Raises BundleError for text that is not JSON, is too large (`max_bytes`), has more
    than a million values, is nested deeper than 32, has a duplicate key, a number that is not finite, an integer beyond
    2^53, or a lone surrogate.
    """
    if len(data) > max_bytes:
        raise BundleError(f"{len(data)} bytes of JSON, more than the {max_bytes} allowed", where=where)
    # Counted before anything is made of them: every value but the first of a list or an object follows a comma.
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BundleError(f"more than {MAX_VALUES} JSON values", where=where)
    try:
        text = data.decode("utf-8")
        value = cast(
            JsonValue,
            json.loads(
                text,
                object_pairs_hook=_unique_keys,
                parse_int=_integer,
                parse_float=_finite,
                parse_constant=_no_constant,
            ),
        )
        _check_shape(value)
    except json.JSONDecodeError as error:
        raise BundleError(f"not JSON: {error.msg}", where=f"{where}:{error.lineno}:{error.colno}") from None
    except UnicodeDecodeError as error:
        raise BundleError(f"not UTF-8 at byte {error.start}", where=where) from None
    except RecursionError:
        raise BundleError(f"JSON nested deeper than {MAX_DEPTH}", where=where) from None
    except _RefusedError as refusal:
        raise BundleError(str(refusal), where=where) from None
    return value


def parse_object(data: bytes, *, where: str, max_bytes: int = MAX_BYTES) -> Fields:
    """The fields of a JSON text that must be an object. Raises BundleError as `parse` does."""
    return Fields(parse(data, where=where, max_bytes=max_bytes), where)


class FieldError(BundleError):
    """A field that is not as it has to be: `field` is its path, such as `shapes[0].height`."""

    def __init__(self, field: str, reason: str, *, where: str, hint: str | None = None) -> None:
        super().__init__(f"{field} {reason}", where=where, hint=hint)
        self.field, self.reason = field, reason


class Fields:
    """Typed access to a JSON object; a missing field or another type is a BundleError that names the field."""

    def __init__(self, value: JsonValue, where: str, name: str = "") -> None:
        self._where = where
        self._prefix = f"{name}." if name else ""
        if not isinstance(value, dict):
            raise BundleError(f"{name or 'the document'} must be an object, not {_kind(value)}", where=where)
        self.values: JsonObject = value

    def refuse(self, name: str, reason: str, *, hint: str | None = None) -> NoReturn:
        """Raises FieldError about the field `name` of this object."""
        raise FieldError(f"{self._prefix}{name}", reason, where=self._where, hint=hint)

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str):
            self.refuse(name, f"must be a string, not {_kind(value)}")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._get(name) is None else self.text(name)

    def integer(self, name: str, *, minimum: int = 0, maximum: int = MAX_INTEGER) -> int:
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, f"must be an integer, not {_kind(value)}")
        return int(self._within(name, value, minimum, maximum))

    def boolean(self, name: str) -> bool:
        value = self._get(name)
        if not isinstance(value, bool):
            self.refuse(name, f"must be true or false, not {_kind(value)}")
        return value

    def number(self, name: str, *, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        return self._within(name, self._number(name, self._get(name)), minimum, maximum)

    def optional_number(self, name: str, *, minimum: float = -math.inf, maximum: float = math.inf) -> float | None:
        return None if self._get(name) is None else self.number(name, minimum=minimum, maximum=maximum)

    def numbers(self, name: str, *, minimum: float = -math.inf, maximum: float = math.inf) -> list[float]:
        found: list[float] = []
        for index, item in enumerate(self._list(name)):
            entry = f"{name}[{index}]"
            found.append(self._within(entry, self._number(entry, item), minimum, maximum))
        return found

    def whole_numbers(self, name: str, count: int) -> list[int]:
        """So many integers of either sign."""
        items = self._list(name)
        whole = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
        if len(whole) != len(items) or len(items) != count:
            self.refuse(name, f"must be {count} integers")
        return whole

    def object(self, name: str) -> Fields:
        return Fields(self._get(name), self._where, self._prefix + name)

    def objects(self, name: str) -> list[Fields]:
        return [
            Fields(item, self._where, f"{self._prefix}{name}[{index}]") for index, item in enumerate(self._list(name))
        ]

    def texts(self, name: str) -> list[str]:
        items = self._list(name)
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self.refuse(f"{name}[{index}]", f"must be a string, not {_kind(item)}")
        return cast("list[str]", items)

    def dimensions(self, name: str, *, most: int = MAX_INTEGER) -> list[int | str]:
        """Sizes from 0 to `most`, and names for sizes."""
        sizes: list[int | str] = []
        for index, item in enumerate(self._list(name)):
            if isinstance(item, bool) or not isinstance(item, (int, str)):
                self.refuse(f"{name}[{index}]", "must be a size or the name of one")
            if isinstance(item, int) and not 0 <= item <= most:
                self.refuse(f"{name}[{index}]", f"must be a size from 0 to {most}, not {item}")
            sizes.append(item)
        return sizes

    def _within(self, name: str, value: float, minimum: float, maximum: float) -> float:
        if value < minimum:
            self.refuse(name, f"must be at least {minimum}, not {value}")
        if value > maximum:
            self.refuse(name, f"must be at most {maximum}, not {value}")
        return value

    def _number(self, name: str, value: JsonValue) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(name, f"must be a number, not {_kind(value)}")
        return float(value)

    def _list(self, name: str) -> list[JsonValue]:
        value = self._get(name)
        if not isinstance(value, list):
            self.refuse(name, f"must be a list, not {_kind(value)}")
        return value

    def _get(self, name: str) -> JsonValue:
        if name not in self.values:
            self.refuse(name, "is missing")
        return self.values[name]


class _RefusedError(Exception):
    """JSON that the standard parser accepts and this one does not."""


def _unique_keys(pairs: Sequence[tuple[str, JsonValue]]) -> JsonObject:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"duplicate key {ascii(key)[:80]}")
            seen.add(key)
    return unique


def _integer(digits: str) -> int:
    # The length comes first: int() of a million digits is slow, and Python 3.11 refuses it with a ValueError.
    if len(digits) > 17 or abs(int(digits)) > MAX_INTEGER:
        raise _RefusedError(f"integer {digits[:20]} is beyond 2^53")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _RefusedError(f"number {digits[:20]} is not finite")
    return value


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not JSON")


def _check_shape(value: JsonValue) -> None:
    """Depth and text, without recursion. A scalar has depth 0, an empty list 1."""
    pending: list[tuple[JsonValue, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            if not _is_unicode(item):
                raise _RefusedError("a string holds half of a surrogate pair")
        elif isinstance(item, (list, dict)):
            if depth > MAX_DEPTH:
                raise _RefusedError(f"JSON nested deeper than {MAX_DEPTH}")
            if isinstance(item, dict):
                pending += [(key, depth + 1) for key in item]
            pending += [(child, depth + 1) for child in (item.values() if isinstance(item, dict) else item)]


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _kind(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
