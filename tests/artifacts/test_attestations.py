"""What may lie in attestations/, the one folder that the manifest does not list."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from wanc.runtime.verify import verify

from .builder import encode, failing_paths, reason


def envelope(**changes: Any) -> dict[str, Any]:
    encoded = base64.b64encode(b"{}").decode()
    return {
        "payloadType": "application/vnd.in-toto+json",
        "payload": encoded,
        "signatures": [{"sig": encoded}],
        **changes,
    }


def attest(bundle: Path, data: bytes, name: str = "signature.dsse.json") -> str:
    (bundle / "attestations").mkdir(exist_ok=True)
    (bundle / "attestations" / name).write_bytes(data)
    return f"attestations/{name}"


def test_attestations_are_allowed(bundle: Path) -> None:
    genuine = verify(bundle).id
    (bundle / "attestations").mkdir()
    assert failing_paths(bundle) == []
    attest(bundle, encode(envelope()))
    attest(bundle, encode(envelope(future=1, signatures=[{"sig": "-_8=", "keyid": "k"}])), "more.json")
    assert failing_paths(bundle) == []
    assert verify(bundle).id == genuine


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#!/bin/sh\n",
        b"[]",
        encode(envelope(signatures=[])),
        encode(envelope(signatures=[{}])),
        encode(envelope(signatures=[{"sig": ""}])),
        encode(envelope(signatures="x")),
        encode(envelope(payload="not base64!")),
        encode(envelope(payload="abc")),
        encode(envelope(payload=1)),
        encode(envelope(payloadType=None)),
        encode(envelope())[:-1],
        encode(envelope()) + encode(envelope()),
        b'{"payloadType":"a",' + encode(envelope())[1:],
    ],
)
def test_what_is_no_envelope_is_no_attestation(bundle: Path, data: bytes) -> None:
    path = attest(bundle, data)
    assert failing_paths(bundle) == [path]
    assert reason(bundle, path).startswith("is not a DSSE envelope: ")


def test_attestation_size_limit(bundle: Path) -> None:
    attest(bundle, encode(envelope()).ljust(2**20))
    assert failing_paths(bundle) == []
    path = attest(bundle, encode(envelope()).ljust(2**20 + 1))
    assert failing_paths(bundle) == [path]


@pytest.mark.parametrize("name", [".hidden", "-x", "a b", "a..b"])
def test_names_of_attestations(bundle: Path, name: str) -> None:
    assert failing_paths(bundle) == []
    assert attest(bundle, encode(envelope()), name) in failing_paths(bundle)


def test_only_plain_files_are_attestations(bundle: Path, tmp_path: Path) -> None:
    path = attest(bundle, encode(envelope()))
    os.link(bundle / path, tmp_path / "outside")
    (bundle / "attestations/inner").mkdir()
    (bundle / "attestations/inner/x.json").write_bytes(encode(envelope()))
    (bundle / "attestations/link.json").symlink_to("signature.dsse.json")
    os.mkfifo(bundle / "attestations/fifo")
    assert failing_paths(bundle) == [
        "attestations/fifo",
        "attestations/inner",
        "attestations/inner/x.json",
        "attestations/link.json",
        path,
    ]


def test_attestations_as_a_file(bundle: Path) -> None:
    (bundle / "attestations").write_bytes(encode(envelope()))
    assert failing_paths(bundle) == ["attestations"]
