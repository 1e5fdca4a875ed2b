"""Strict YAML: what two readers could take differently, or what could exhaust one, is refused with its place.

PyYAML cuts the text into events; everything above that is done here, because its own composer accepts duplicate keys,
tags, several documents, and structures that expand to any size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn, cast

import yaml

from wanc.errors import RecipeError
from wanc.recipe import scalars
from wanc.recipe.tree import Node, Scalar, TextSource
from wanc.runtime.text_file import position

MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_ALIASES = 64
# PyYAML's time grows with words, lines and escapes rather than with bytes: a megabyte of them would take seconds.
MAX_BREAKS = 50_000

# What YAML 1.2 calls non-printable, and the line ends that only YAML 1.1 knows.
_FORBIDDEN_RAW = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
# What an escape such as "\0" must not bring in either: no path, prompt or file name can hold it.
_FORBIDDEN_ESCAPED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_KEY = re.compile(r"[\x20-\x7e]+")

# PyYAML's words for a fault → what to do about it; the first that fits.
_HINTS = (
    ("a tab", "indent with spaces, and put spaces after a colon"),
    ("mapping values are not allowed", "put quotes around text that holds ': ', and check the indentation"),
    ("cannot start any token", "put quotes around text that begins with one of @ ` %"),
    ("escape", "in double quotes a backslash begins an escape; use single quotes"),
    ("expected ',' or", "close the bracket, and put a comma between items"),
    ("while scanning a quoted scalar", "close the quote"),
    ("block scalar", "put quotes around text that begins with > or |"),
    ("block", "lines of one mapping or list begin in the same column"),
    ("expected ':'", "a line of a mapping is `key: value`"),
)


def parse(text: str, source: TextSource) -> Node:
    """The tree of a text of one YAML document; an empty text is a null.

    Raises:
        RecipeError: the text is not YAML, is ambiguous, or is beyond the limits above.
    """
    if forbidden := _FORBIDDEN_RAW.search(text):
        _refuse_character(forbidden, source)
    if sum(map(text.count, " \n\r\\")) > MAX_BREAKS:
        message = f"the text has more than {MAX_BREAKS:,} blanks, line ends and backslashes"
        hint = "a recipe is a few kilobytes of settings; is this the right file?"
        raise RecipeError(message, where=source.at(1, 1), hint=hint)
    events = list(_events(text, source))
    return _Composer(events, source).root()


def _refuse_character(match: re.Match[str], source: TextSource) -> NoReturn:
    where = source.at(*position(match.string[: match.start()]))
    hint = "delete it; is this the right file, saved as UTF-8 text?"
    raise RecipeError(f"the character U+{ord(match[0]):04X} is not allowed in YAML", where=where, hint=hint)


def _at(mark: Any, source: TextSource) -> str:
    return source.at(mark.line + 1, mark.column + 1)


def _events(text: str, source: TextSource) -> Iterator[Any]:
    """PyYAML's events, stopped at the first that is refused: it must not get to see the rest of a hostile text."""
    loader = cast(Any, yaml).SafeLoader(text)  # PyYAML's event interface has no types
    depth = nodes = aliases = documents = 0
    try:
        while loader.check_event():
            event = loader.get_event()
            _refuse_feature(event, source)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            documents += isinstance(event, yaml.DocumentStartEvent)
            where = _at(event.start_mark, source)
            _refuse_size(depth, nodes, where)
            if aliases > MAX_ALIASES:
                raise RecipeError(f"more than {MAX_ALIASES} aliases", where=where, hint="write the values out")
            if documents > 1:
                hint = "one file is one recipe; remove the line `---` and what follows it"
                raise RecipeError("a second document begins", where=where, hint=hint)
            yield event
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, source) from None
    except (ValueError, OverflowError):
        # An escape such as "\Uffffffff" reaches chr() unchecked.
        hint = "an escape names a character up to U+10FFFF"
        raise RecipeError("an escape names no character", where=_at(loader.get_mark(), source), hint=hint) from None


def _refuse_feature(event: Any, source: TextSource) -> None:
    where = _at(event.start_mark, source)
    if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
        raise RecipeError("directives such as %YAML are not accepted", where=where, hint="remove the line")
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:40]
        hint = "a recipe is plain data; put quotes around text that begins with '!'"
        raise RecipeError(f"tags such as {tag} are not accepted", where=where, hint=hint)


def _refuse_size(depth: int, nodes: int, where: str) -> None:
    if depth > MAX_DEPTH:
        raise RecipeError(f"the nesting is deeper than {MAX_DEPTH}", where=where, hint="a recipe is a few levels deep")
    if nodes > MAX_NODES:
        hint = "aliases count as what they stand for"
        raise RecipeError(f"the text has more than {MAX_NODES:,} values", where=where, hint=hint)


def _syntax_error(error: yaml.MarkedYAMLError, source: TextSource) -> RecipeError:
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem).replace(r"found character '\t' that cannot start any token", "a tab begins a value")
    said = f"{problem} {error.context}"
    hint = next((hint for words, hint in _HINTS if words in said), "check the quotes and the indentation")
    begun = f" ({error.context}, begun in line {error.context_mark.line + 1})" if error.context_mark else ""
    return RecipeError(f"not valid YAML: {problem}{begun}", where=_at(mark, source), hint=hint)


class _Composer:
    """Builds the tree from the events; an alias is read again from its anchor on, and so counts in full."""

    def __init__(self, events: list[Any], source: TextSource) -> None:
        self.events = events
        self.source = source
        self.anchors: dict[str, int] = {}
        self.nodes = 0
        self.repeating_at: str | None = None

    def root(self) -> Node:
        """The document, which follows the start of the stream and its own start."""
        if isinstance(self.events[1], yaml.StreamEndEvent):
            start = self.source.at(1, 1)
            return Node(None, start, start, self.source.folder)
        return self._node(2, None, 0)[0]

    def _node(self, index: int, key_at: str | None, depth: int) -> tuple[Node, int]:
        """The node whose first event is at `index`, and the index of what follows it."""
        event = self.events[index]
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(event, key_at, depth), index + 1
        at = _at(event.start_mark, self.source)
        self.nodes += 1
        _refuse_size(depth, self.nodes, self.repeating_at or at)
        value: Scalar | dict[str, Node] | list[Node]
        if isinstance(event, yaml.MappingStartEvent):
            value, following = self._mapping(index + 1, depth + 1)
        elif isinstance(event, yaml.SequenceStartEvent):
            value, following = self._sequence(index + 1, depth + 1)
        else:
            value, following = self._scalar(event, at), index + 1
        if event.anchor is not None and self.anchors.setdefault(event.anchor, index) != index:
            raise RecipeError(f"the anchor &{event.anchor} stands twice", where=at, hint="rename one of them")
        return Node(value, at, key_at or at, self.source.folder), following

    def _repeated(self, event: Any, key_at: str | None, depth: int) -> Node:
        """The value that an alias stands for."""
        where = _at(event.start_mark, self.source)
        if event.anchor not in self.anchors:
            # An anchor is known once its value is complete, so a value that holds itself ends up here as well.
            hint = f"write &{event.anchor} before the value that *{event.anchor} repeats"
            raise RecipeError(f"the alias *{event.anchor} stands for no value above it", where=where, hint=hint)
        enclosing, self.repeating_at = self.repeating_at, self.repeating_at or where
        node, _ = self._node(self.anchors[event.anchor], key_at, depth)
        self.repeating_at = enclosing
        return node

    def _mapping(self, index: int, depth: int) -> tuple[dict[str, Node], int]:
        mapping: dict[str, Node] = {}
        while not isinstance(self.events[index], yaml.MappingEndEvent):
            key = self._key(self.events[index])
            at = _at(self.events[index].start_mark, self.source)
            if key in mapping:
                hint = f"it stands first at {mapping[key].key_at}; keep one of them"
                raise RecipeError(f"the key {key} stands twice in one mapping", where=at, hint=hint)
            mapping[key], index = self._node(index + 1, at, depth)
        return mapping, index + 1

    def _sequence(self, index: int, depth: int) -> tuple[list[Node], int]:
        items: list[Node] = []
        while not isinstance(self.events[index], yaml.SequenceEndEvent):
            item, index = self._node(index, None, depth)
            items.append(item)
        return items, index + 1

    def _key(self, event: Any) -> str:
        where = _at(event.start_mark, self.source)
        if not isinstance(event, yaml.ScalarEvent):
            raise RecipeError("a key has to be text", where=where, hint="write `key: value`")
        key = self._scalar(event, where)
        if key == "<<":
            raise RecipeError("merge keys (<<) are not accepted", where=where, hint="use `extends`, or write it out")
        if not isinstance(key, str):
            raise RecipeError("a key has to be text", where=where, hint=f'put it in quotes: "{event.value[:40]}"')
        if not _KEY.fullmatch(key):
            message = f"a key has to be printable ASCII text, not {key[:40]!a}"
            raise RecipeError(message, where=where, hint="type it again")
        return key

    def _scalar(self, event: Any, where: str) -> Scalar:
        text = cast(str, event.value)
        if forbidden := _FORBIDDEN_ESCAPED.search(text):
            message = f"the escape for U+{ord(forbidden[0]):04X} is not accepted"
            raise RecipeError(message, where=where, hint="remove it; control characters have no use in a recipe")
        # style is None for unquoted text only; quotes and blocks always mean text.
        if event.style is not None:
            return text
        try:
            return scalars.resolve(text)
        except ValueError as error:
            raise RecipeError(str(error), where=where, hint="put it in quotes if it is meant as text") from None
