"""Small bundles built by hand: reader and writer must not be tested by each other alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from wanc.errors import EXIT_REFUSED, BundleError, VerificationError
from wanc.runtime.verify import ensure_verified, verify

ROOT = Path(__file__).resolve().parents[2]

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

Break = Callable[[int, Callable[[], None]], Callable[[], bool]]
"""The fixture `break_at`."""

CONTENT: dict[str, bytes] = {
    "WANC": b"wanc-bundle 1\n",
    "run.py": b"print('tiny')\n",
    "program.json": b'{"components":{}}',
    "engines/denoiser/step.s0.cpu.onnx": bytes(range(256)) * 3,
    "engines/denoiser/step.s1.cpu.onnx": bytes(range(255, -1, -1)) * 3,
    "engines/denoiser/weights.safetensors": b"\x08\0\0\0\0\0\0\0{}      " + b"\x01\x02\x03\x04" * 500,
    "tokenizer/tokenizer.json": b"{}",
    "LICENSES/Apache-2.0.txt": b"Apache License\n",
}


def manifest_of(content: Mapping[str, bytes], **changes: Any) -> dict[str, Any]:
    """A valid manifest for the content, with some fields replaced."""
    files = [
        {
            "path": path,
            "size": len(data),
            "sha256": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "mediaType": "application/octet-stream",
            "role": "test",
            "executable": False,
        }
        for path, data in sorted(content.items())
    ]
    return {
        "schema": "wanc.manifest/1.0",
        "name": "tiny",
        "version": "0.1.0",
        "created": "2026-01-01T00:00:00Z",
        "requires": [],
        "targets": [{"backend": "cpu"}],
        "topology": {"components": []},
        "runtime": {},
        "files": files,
        "entry": "run.py",
        "recipe_sha256": f"sha256:{'0' * 64}",
        "parents": [],
        **changes,
    }


def encode(document: object) -> bytes:
    """RFC 8785, for documents of ASCII text, integers, lists and objects."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def write_bundle(root: Path, content: Mapping[str, bytes] = CONTENT, **changes: Any) -> Path:
    """A bundle on disk."""
    for path, data in content.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (root / "manifest.json").write_bytes(encode(manifest_of(content, **changes)))
    return root


def failing_paths(bundle: Path) -> list[str]:
    report = verify(bundle)
    assert report.ok == (not report.failures)
    assert list(report.failures) == sorted(report.failures)
    if report.failures:
        with pytest.raises(VerificationError if report.manifest else BundleError) as caught:
            ensure_verified(bundle)
        if report.manifest:
            assert caught.value.exit_code == EXIT_REFUSED
        assert report.failures[0].path in str(caught.value)
    return [failure.path for failure in report.failures]


def reason(bundle: Path, path: str) -> str:
    (found,) = [failure.reason for failure in verify(bundle).failures if failure.path == path]
    return found
