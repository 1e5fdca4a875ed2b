"""Documents as bytes, in one form only (RFC 8785), so that their digests can name them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import rfc8785

from wanc.runtime.strict_json import JsonValue


def canonical(document: Mapping[str, JsonValue]) -> bytes:
    """The RFC 8785 form of a document.

    Raises ValueError for what JSON cannot say exactly: NaN, infinities, integers beyond 2^53, lone surrogates.
    """
    return rfc8785.dumps(cast("dict[str, Any]", document))


def digest_of(document: Mapping[str, JsonValue]) -> str:
    """ "sha256:<64 hex>" of the canonical form. Raises ValueError as `canonical` does."""
    return f"sha256:{key_of(document)}"


def key_of(document: Mapping[str, JsonValue]) -> str:
    """The 64 hex digits under which the store keeps the action that this key document describes."""
    return hashlib.sha256(canonical(document)).hexdigest()
