"""JSON that is refused, JSON that is read, and that nothing else can happen."""

from __future__ import annotations

import contextlib
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.artifacts.canonical import canonical
from wanc.errors import BundleError
from wanc.runtime import strict_json
from wanc.runtime.strict_json import Fields, JsonValue, parse, parse_object

steady = settings(derandomize=True, max_examples=150, deadline=None, database=None)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not 2**53 <= abs(number) < 1e21)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé", max_size=5), inner, max_size=4),
    max_leaves=12,
)


def read(text: str | bytes) -> JsonValue:
    return parse(text.encode() if isinstance(text, str) else text, where="x.json")


def refused(text: str | bytes) -> str:
    with pytest.raises(BundleError) as caught:
        read(text)
    return str(caught.value)


@steady
@given(values)
def test_what_json_writes_is_read_as_it_was(value: JsonValue) -> None:
    assert read(json.dumps(value)) == value
    assert read(json.dumps(value, ensure_ascii=False, indent=1)) == value


@steady
@given(st.dictionaries(st.text("abé", max_size=4), values, max_size=4))
def test_canonical_documents_survive(document: dict[str, JsonValue]) -> None:
    once = canonical(document)
    assert canonical(parse_object(once, where="x").values) == once


@steady
@given(st.binary(max_size=60) | st.text('{}[]",:\\u0123456789.eE+-ntf \x00é', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read(data)
    except BundleError as error:
        assert str(error).startswith("x.json")


@steady
@given(values, st.data())
def test_any_flipped_bit_is_read_or_refused(value: JsonValue, data: st.DataObject) -> None:
    text = bytearray(json.dumps(value).encode())
    text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(BundleError):
        read(bytes(text))


def test_size_limit() -> None:
    assert parse(b"[]" + b" " * 8, where="x", max_bytes=10) == []
    with pytest.raises(BundleError, match=r"x: 11 bytes of JSON, more than the 10 allowed"):
        parse(b"[]" + b" " * 9, where="x", max_bytes=10)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_limit(opening: str, closing: str) -> None:
    read(opening * 32 + "1" + closing * 32)
    assert "nested deeper than 32" in refused(opening * 33 + "1" + closing * 33)
    assert "nested deeper than 32" in refused(opening * 100_000 + "1" + closing * 100_000)


def test_a_deep_text_that_never_ends() -> None:
    assert refused("[" * 1_000_000)


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_integer_limit(number: int) -> None:
    assert read(str(number)) == number
    assert "is beyond 2^53" in refused(str(number + (1 if number > 0 else -1)))
    assert "is beyond 2^53" in refused(f"{number}{'0' * 100_000}")


@pytest.mark.parametrize("text", ["1e400", "-1e400", "9" * 400 + ".0", "1e99999999999"])
def test_numbers_must_be_finite(text: str) -> None:
    assert "is not finite" in refused(text)


def test_the_largest_double_is_read() -> None:
    assert read("1.7976931348623157e308") == 1.7976931348623157e308
    assert math.copysign(1, float(str(read("-0.0")))) == -1


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "[1,NaN]"])
def test_no_constants(text: str) -> None:
    assert "is not JSON" in refused(text)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '{"b":{"a":1,"c":2,"a":3}}', '{"a":1,"\\u0061":2}', '{"":1,"":2}'])
def test_no_duplicate_keys(text: str) -> None:
    assert "duplicate key" in refused(text)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff":1}', '["\\udc00\\ud800"]'])
def test_no_half_surrogates(text: str) -> None:
    assert "surrogate" in refused(text)
    assert read('"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    "data", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", '"é"'.encode("utf-16"), b'"\xc0\x80"']
)
def test_only_utf8_without_a_mark(data: bytes) -> None:
    assert refused(data)


@pytest.mark.parametrize(
    "text", ["", " ", "{}{}", "[1,]", "{'a':1}", "01", "+1", ".5", "// c\n1", '"\n"', "\x00", "[1] x"]
)
def test_not_json(text: str) -> None:
    assert "not JSON" in refused(text)


def test_errors_say_line_and_column() -> None:
    assert refused('{\n "a": 1,\n "b": x\n}').startswith("x.json:3:7: ")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fields: fields.text("n"), "n must be a string, not a number"),
        (lambda fields: fields.text("absent"), "absent is missing"),
        (lambda fields: fields.integer("s"), "s must be an integer, not a string"),
        (lambda fields: fields.integer("t"), "t must be an integer, not a boolean"),
        (lambda fields: fields.integer("f"), "f must be an integer, not a number"),
        (lambda fields: fields.integer("n", minimum=8), "n must be at least 8, not 7"),
        (lambda fields: fields.boolean("n"), "n must be true or false, not a number"),
        (lambda fields: fields.number("t"), "t must be a number, not a boolean"),
        (lambda fields: fields.optional_number("s"), "s must be a number, not a string"),
        (lambda fields: fields.object("o").number("x"), "o.x must be a number, not null"),
        (lambda fields: fields.numbers("m"), "m[0] must be a number, not a string"),
        (lambda fields: fields.object("l"), "l must be an object, not a list"),
        (lambda fields: fields.object("o").text("x"), "o.x must be a string, not null"),
        (lambda fields: fields.objects("s"), "s must be a list, not a string"),
        (lambda fields: fields.objects("l"), "l[0] must be an object, not a number"),
        (lambda fields: fields.texts("m"), "m[1] must be a string, not an object"),
        (lambda fields: fields.objects("d")[1].text("x"), "d[1].x is missing"),
    ],
)
def test_fields_name_what_is_wrong(call: object, message: str) -> None:
    text = b'{"n":7,"s":"","t":true,"f":1.5,"o":{"x":null},"l":[1],"m":["",{}],"d":[{"x":""},{}]}'
    fields = parse_object(text, where="x")
    assert callable(call)
    with pytest.raises(BundleError, match=f"^x: {re.escape(message)}$"):
        call(fields)


def test_fields_read() -> None:
    fields = parse_object(
        b'{"n":7,"s":"t","t":true,"o":{"x":1},"m":["a"],"d":[{"x":2}],"z":null,"f":[1.5,2]}', where="x"
    )
    assert (fields.integer("n"), fields.text("s"), fields.boolean("t")) == (7, "t", True)
    assert fields.object("o").integer("x") == 1
    assert (fields.number("n"), fields.optional_number("z"), fields.numbers("f")) == (7.0, None, [1.5, 2.0])
    assert (fields.texts("m"), fields.objects("d")[0].integer("x")) == (["a"], 2)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"a"', "true"])
def test_a_document_must_be_an_object(text: str) -> None:
    with pytest.raises(BundleError, match="the document must be an object, not "):
        Fields(read(text), "x")


@pytest.mark.parametrize("value", [b"1", b"[]", b"{}"])
def test_values_are_counted_before_they_are_made(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    inner = value in (b"[]", b"{}")  # which open something themselves
    monkeypatch.setattr(strict_json, "MAX_VALUES", 8)
    most = 8 // 2 if inner else 8
    assert parse(b"[" + b",".join([value] * most) + b"]", where="text") is not None
    with pytest.raises(BundleError) as caught:
        parse(b"[" + b",".join([value] * (most + 1)) + b"]", where="text")
    assert str(caught.value) == "text: more than 8 JSON values"
