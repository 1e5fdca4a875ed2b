"""What a bundle was built with, beside what is installed here: the first thing to look at where an engine fails."""

from __future__ import annotations

from contextlib import suppress

from .directory import Root, as_directory
from .errors import BundleError
from .safe_read import read_whole
from .same_module import installed

FILE = "requirements.txt"
INSTALL = f"pip install -r {FILE}, which the bundle has"
MOST_BYTES = 2**16


def differences(root: Root) -> list[str]:
    """`onnxruntime is 1.20.0 here, and the bundle was built with 1.32.0`, for each that is another, or is not here."""
    with suppress(BundleError):
        directory = as_directory(root)
        text = read_whole(directory.descriptor, FILE, max_bytes=MOST_BYTES, where=str(directory.shown)).decode()
        pinned = [line.partition("==") for line in text.splitlines()]
        return [
            f"{name} is {_installed(name)} here, and the bundle was built with {version}"
            for name, _, version in pinned
            if _installed(name) != version
        ]
    return []


def _installed(name: str) -> str:
    found = installed(name)
    return "missing" if found is None else found[1]
