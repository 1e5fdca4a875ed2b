"""RFC 8785 and the digests made from it."""

from __future__ import annotations

import hashlib

import pytest

from wanc.artifacts.canonical import canonical, digest_of, key_of


def test_one_form_whatever_the_order() -> None:
    assert (
        canonical({"b": [1, 2.50, None], "a": {"é": True, "z": "\n"}})
        == '{"a":{"z":"\\n","é":true},"b":[1,2.5,null]}'.encode()
    )
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_keys_sort_by_utf16_as_the_standard_says() -> None:
    assert canonical({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


def test_digests_and_keys_name_the_bytes() -> None:
    digits = hashlib.sha256(b"{}").hexdigest()
    assert (digest_of({}), key_of({})) == (f"sha256:{digits}", digits)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800"])
def test_what_json_cannot_say(value: float | str) -> None:
    with pytest.raises(ValueError):
        canonical({"a": value})
