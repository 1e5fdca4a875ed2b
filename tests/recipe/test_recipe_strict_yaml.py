from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load
from wanc.recipe.strict_yaml import MAX_ALIASES, MAX_BREAKS, MAX_DEPTH, MAX_NODES, parse
from wanc.recipe.tree import TextSource, marks_of, plain
from wanc.runtime.text_file import MAX_BYTES

Write = Callable[[str, str | bytes], Path]

SOURCE = TextSource("recipe.yaml", Path())
TOO_LARGE = "a recipe is a few kilobytes of settings; is this the right file?"
BAD_CHARACTER = "delete it; is this the right file, saved as UTF-8 text?"
NO_RECIPE = "a recipe is a mapping that begins with `wanc: 1`; `wanc recipe new` writes one"
ONE_COLUMN = "lines of one mapping or list begin in the same column"
NEEDS_QUOTES = "put quotes around text that holds ': ', and check the indentation"
SPACES = "indent with spaces, and put spaces after a colon"
PLAIN_DATA = "a recipe is plain data; put quotes around text that begins with '!'"

# name: (file, line:column, message, hint)
HOSTILE: dict[str, tuple[str | bytes, str, str, str]] = {
    # what YAML cannot be
    "empty": ("", "1:1", "the recipe is empty", NO_RECIPE),
    "comments only": ("# nothing\n", "1:1", "the recipe is empty", NO_RECIPE),
    "list": ("- wanc: 1\n", "1:1", "the recipe is not a mapping", NO_RECIPE),
    "word": ("wanc\n", "1:1", "the recipe is not a mapping", NO_RECIPE),
    "two documents": (
        "wanc: 1\n---\nwanc: 1\n",
        "2:1",
        "a second document begins",
        "one file is one recipe; remove the line `---` and what follows it",
    ),
    "directive": ("%YAML 1.1\n---\na: no\n", "1:1", "directives such as %YAML are not accepted", "remove the line"),
    "tag directive": (
        "%TAG ! tag:x,2000:\n---\na: 1\n",
        "1:1",
        "directives such as %YAML are not accepted",
        "remove the line",
    ),
    # keys
    "duplicate key": (
        "a: 1\nb: 2\na: 3\n",
        "3:1",
        "the key a stands twice in one mapping",
        "it stands first at recipe.yaml:1:1; keep one of them",
    ),
    "duplicate key, quoted": (
        "x: {a: 1, 'a': 2}\n",
        "1:11",
        "the key a stands twice in one mapping",
        "it stands first at recipe.yaml:1:5; keep one of them",
    ),
    "duplicate key in CRLF": (
        b"a: 1\r\nb: 2\r\nb: 3\r\n",
        "3:1",
        "the key b stands twice in one mapping",
        "it stands first at recipe.yaml:2:1; keep one of them",
    ),
    "number as key": ("480: x\n", "1:1", "a key has to be text", 'put it in quotes: "480"'),
    "true as key": ("a: {true: x}\n", "1:5", "a key has to be text", 'put it in quotes: "true"'),
    "list as key": ("? [a]\n: 1\n", "1:3", "a key has to be text", "write `key: value`"),
    "alias as key": ("a: &x b\n*x : 1\n", "2:1", "a key has to be text", "write `key: value`"),
    "merge key": (
        "a: &a {b: 1}\nc: {<<: *a}\n",
        "2:5",
        "merge keys (<<) are not accepted",
        "use `extends`, or write it out",
    ),
    "Cyrillic key": (
        "st\u0435ps: 1\n",
        "1:1",
        "a key has to be printable ASCII text, not 'st\\u0435ps'",
        "type it again",
    ),
    "empty key": ('"": 1\n', "1:1", "a key has to be printable ASCII text, not ''", "type it again"),
    "line end in key": ('"a\\nb": 1\n', "1:1", "a key has to be printable ASCII text, not 'a\\nb'", "type it again"),
    # tags
    "python/object": (
        "a: !!python/object/apply:os.system [id]\n",
        "1:4",
        "tags such as !!python/object/apply:os.system are not accepted",
        PLAIN_DATA,
    ),
    "tag on a mapping": ("!!map {a: 1}\n", "1:1", "tags such as !!map are not accepted", PLAIN_DATA),
    "local tag": ("a: !b c\n", "1:4", "tags such as !b are not accepted", PLAIN_DATA),
    "empty tag": ("a: ! c\n", "1:4", "tags such as ! are not accepted", PLAIN_DATA),
    # anchors
    "unknown alias": (
        "a: *b\n",
        "1:4",
        "the alias *b stands for no value above it",
        "write &b before the value that *b repeats",
    ),
    "value that holds itself": (
        "a: &b [*b]\n",
        "1:8",
        "the alias *b stands for no value above it",
        "write &b before the value that *b repeats",
    ),
    "anchor twice": ("a: &b 1\nc: &b 2\n", "2:4", "the anchor &b stands twice", "rename one of them"),
    "alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n"
        "c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n"
        "e: &e [*d, *d, *d, *d, *d, *d, *d, *d]\n",
        "5:8",
        "the text has more than 10,000 values",
        "aliases count as what they stand for",
    ),
    "many aliases": (
        f"a: &a 1\nb: [{'*a,' * 65}]\n",
        "2:197",
        "more than 64 aliases",
        "write the values out",
    ),
    # depth and size
    "5,000 brackets": ("[" * 5000, "1:65", "the nesting is deeper than 64", "a recipe is a few levels deep"),
    "10,000 braces": ("{a: " * 10000, "1:257", "the nesting is deeper than 64", "a recipe is a few levels deep"),
    "10,000 dashes": ("- " * 10000, "1:129", "the nesting is deeper than 64", "a recipe is a few levels deep"),
    "many values": (
        f"a: [{'1,' * MAX_NODES}]\n",
        "1:19999",
        "the text has more than 10,000 values",
        "aliases count as what they stand for",
    ),
    "two megabytes": ("a: " + "x" * 2**21, "1:1", "the file is larger than 1,048,576 bytes", TOO_LARGE),
    "a megabyte of line ends": (
        "\n" * 2**20,
        "1:1",
        "the text has more than 50,000 blanks, line ends and backslashes",
        TOO_LARGE,
    ),
    # characters
    "NUL": ("a: b\nc: \0\n", "2:4", "the character U+0000 is not allowed in YAML", BAD_CHARACTER),
    "NUL, escaped": (
        'a: "\\0"\n',
        "1:4",
        "the escape for U+0000 is not accepted",
        "remove it; control characters have no use in a recipe",
    ),
    "half a surrogate pair": (
        'a: "\\ud800"\n',
        "1:4",
        "the escape for U+D800 is not accepted",
        "remove it; control characters have no use in a recipe",
    ),
    "escape beyond Unicode": (
        'a: "\\Uffffffff"\n',
        "1:7",
        "an escape names no character",
        "an escape names a character up to U+10FFFF",
    ),
    "line separator": ("a: b\u2028c\n", "1:5", "the character U+2028 is not allowed in YAML", BAD_CHARACTER),
    "UTF-8 mark": (
        "\ufeffa: 1\n",
        "1:1",
        "the file begins with a byte order mark",
        "save it as UTF-8 without a byte order mark",
    ),
    "mark inside": ("a: \ufeff1\n", "1:4", "the character U+FEFF is not allowed in YAML", BAD_CHARACTER),
    "UTF-16": ("a: 1\n".encode("utf-16"), "1:1", "the file is UTF-16 text", "save it as UTF-8"),
    "UTF-16 without mark": (
        "a: 1\n".encode("utf-16-le"),
        "1:2",
        "the character U+0000 is not allowed in YAML",
        BAD_CHARACTER,
    ),
    "Latin-1": ("a: 1\nb: é\n".encode("latin-1"), "2:4", "the byte 0xe9 is not UTF-8 text", "save it as UTF-8"),
    "tab as indentation": ("a:\n\tb: 1\n", "2:1", "not valid YAML: a tab begins a value", SPACES),
    "tab after a colon": ("a:\tb\n", "1:3", "not valid YAML: a tab begins a value", SPACES),
    # syntax
    "open bracket": (
        "a: [1, 2\nb: 3\n",
        "2:2",
        "not valid YAML: expected ',' or ']', but got ':' (while parsing a flow sequence, begun in line 1)",
        "close the bracket, and put a comma between items",
    ),
    "open quote": (
        'a: "b\n',
        "2:1",
        "not valid YAML: found unexpected end of stream (while scanning a quoted scalar, begun in line 1)",
        "close the quote",
    ),
    "two colons": ("a: b: c\n", "1:5", "not valid YAML: mapping values are not allowed here", NEEDS_QUOTES),
    "at sign": (
        "a: @b\n",
        "1:4",
        "not valid YAML: found character '@' that cannot start any token",
        "put quotes around text that begins with one of @ ` %",
    ),
    "Windows path": (
        'a: "C:\\models"\n',
        "1:8",
        "not valid YAML: found unknown escape character 'm' (while scanning a double-quoted scalar, begun in line 1)",
        "in double quotes a backslash begins an escape; use single quotes",
    ),
    "odd indentation": (
        "a:\n   b: 1\n  c: 2\n",
        "3:3",
        "not valid YAML: expected <block end>, but found '<block mapping start>' "
        "(while parsing a block mapping, begun in line 1)",
        ONE_COLUMN,
    ),
    "line without a colon": (
        "a: 1\nb\nc: 2\n",
        "3:1",
        "not valid YAML: could not find expected ':' (while scanning a simple key, begun in line 2)",
        "a line of a mapping is `key: value`",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_text_is_refused_with_its_place(case: str, write: Write) -> None:
    content, place, message, hint = HOSTILE[case]
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", content))
    assert caught.value.message == message
    assert caught.value.where == f"recipe.yaml:{place}"
    assert caught.value.hint == hint
    assert caught.value.exit_code == 2


def test_good_text_is_read() -> None:
    text = "a: 1\nb:\n  - x\n  - {c: 'it''s', d: \"\\u00e9\\n\"}\ne: |\n  two\n  lines\n"
    assert plain(parse(text, SOURCE)) == {"a": 1, "b": ("x", {"c": "it's", "d": "é\n"}), "e": "two\nlines\n"}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_systems_are_equal(line_end: str) -> None:
    root = parse(line_end.join(["a: 1", "b:", "  c: 2", ""]), SOURCE)
    assert plain(root) == {"a": 1, "b": {"c": 2}}
    assert marks_of(root).where("b.c") == "recipe.yaml:3:6"


def test_marks_of_keys_and_values() -> None:
    marks = marks_of(parse("a:\n  b: [1, {c: 2}]\n", SOURCE))
    places = {path: (mark.key, mark.value) for path, mark in marks.by_path.items()}
    assert places == {
        (): ("recipe.yaml:1:1", "recipe.yaml:1:1"),
        ("a",): ("recipe.yaml:1:1", "recipe.yaml:2:3"),
        ("a", "b"): ("recipe.yaml:2:3", "recipe.yaml:2:6"),
        ("a", "b", 0): ("recipe.yaml:2:7", "recipe.yaml:2:7"),
        ("a", "b", 1): ("recipe.yaml:2:10", "recipe.yaml:2:10"),
        ("a", "b", 1, "c"): ("recipe.yaml:2:11", "recipe.yaml:2:14"),
    }


def test_the_mark_of_what_is_not_written_is_that_of_what_encloses_it() -> None:
    marks = marks_of(parse("a: 1\nb:\n  c: 2\n", SOURCE))
    assert marks.where("b.d.e") == marks.where("b") == "recipe.yaml:3:3"
    assert marks.where("z") == "recipe.yaml:1:1"


def test_an_alias_repeats_its_value_and_points_at_it() -> None:
    root = parse("a: &x {b: 1}\nc: *x\nd: [*x]\n", SOURCE)
    assert plain(root) == {"a": {"b": 1}, "c": {"b": 1}, "d": ({"b": 1},)}
    marks = marks_of(root)
    assert marks.mark(("c",)).key == "recipe.yaml:2:1"
    assert marks.where("c.b") == marks.where("d.0.b") == "recipe.yaml:1:11"


# Each limit holds exactly: text at the limit is read, text one beyond it is not.
AT_LIMIT: dict[str, tuple[Callable[[int], str], int]] = {
    "depth": (lambda count: "[" * count + "]" * count, MAX_DEPTH),
    "nodes": (lambda count: f"[{'1,' * (count - 1)}]", MAX_NODES),
    "nodes through aliases": (lambda count: f"[&a [{'1,' * 99}]{',*a' * 49}{',1' * (count - 5001)}]", MAX_NODES),
    "aliases": (lambda count: f"[&a 1{',*a' * count}]", MAX_ALIASES),
    "breaks": (lambda count: "a: 1" + "\n" * (count - 1), MAX_BREAKS),
}


@pytest.mark.parametrize("limit", AT_LIMIT)
def test_limits_are_exact(limit: str) -> None:
    build, count = AT_LIMIT[limit]
    parse(build(count), SOURCE)
    with pytest.raises(RecipeError):
        parse(build(count + 1), SOURCE)


def test_an_alias_cannot_lead_below_the_depth_limit() -> None:
    half = MAX_DEPTH // 2
    deep = "[" * half + "1" + "]" * half
    parse(f"[&a {deep}, {'[' * (half - 1)}*a{']' * (half - 1)}]", SOURCE)
    with pytest.raises(RecipeError, match="deeper than 64"):
        parse(f"[&a {deep}, {'[' * half}*a{']' * half}]", SOURCE)


def test_a_file_of_100_megabytes_is_not_read(write: Write) -> None:
    path = write("recipe.yaml", "a: ")
    with path.open("r+b") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(RecipeError, match="larger than 1,048,576 bytes") as caught:
        load(path)
    assert caught.value.where == "recipe.yaml:1:1"


def test_the_size_limit_is_exact(write: Write, tiny: str) -> None:
    padding = "#" * (MAX_BYTES - len(tiny.encode()))
    load(write("recipe.yaml", tiny + padding))
    with pytest.raises(RecipeError, match="larger than 1,048,576 bytes"):
        load(write("recipe.yaml", tiny + padding + "#"))


EXPENSIVE: dict[str, str | bytes] = {
    "brackets": "[" * 5000,
    "a megabyte of brackets": "[" * 2**20,
    "alias bomb": HOSTILE["alias bomb"][0],
    "one word of a megabyte": "a: " + "x" * (2**20 - 3),
    "many words": "a: " + "x " * 49_000 + "x" * 900_000,
    "many lines": "a: " + "x\n " * 24_000 + "x" * 900_000,
    "many escapes": '"' + "\\n" * 49_000 + "x" * 900_000 + '"',
    "digits": "a: " + "9" * (2**20 - 4),
    "many values": f"a: [{'1,' * 9990}]",
    "many unknown keys": "".join(f"key{n}: 1\n" for n in range(4990)),
    "many wrong targets": f"engine: {{targets: [{'x,' * 9980}]}}",
    "many wrong devices": f"partition: {{devices: [{'{kind: x},' * 3000}]}}",
    "many variants": f"a: [{'1,' * 9000}]\nmatrix: {{{','.join(f'v{n}: {{}}' for n in range(16))}}}\n",
    "a scheme of a megabyte": f"quantize: {{scheme: {'int8' * 200_000}}}",
}

# Processor time rather than time on the clock, and the better of two: other work on the machine must not fail the test.
# The peak of memory is the new program's own; that of getrusage() would include the process that started it.
MEASURE = """
import re, sys, time
from wanc.errors import RecipeError
from wanc.recipe.load import load

def seconds(path):
    start = time.process_time()
    try:
        load(path)
    except RecipeError:
        return time.process_time() - start

for path in sys.argv[1:]:
    took = seconds(path)
    print(took if took < 0.8 else min(took, seconds(path)))
with open("/proc/self/status") as status:
    print(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_hostile_text_costs_little(write: Write) -> None:
    paths = [str(write(f"{number}.yaml", text).absolute()) for number, text in enumerate(EXPENSIVE.values())]
    command = [sys.executable, "-c", MEASURE, *paths]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    *seconds, peak = map(float, result.stdout.split())
    too_slow = {case: took for case, took in zip(EXPENSIVE, seconds, strict=True) if took >= 1}
    assert not too_slow
    assert peak < 200 * 1024
