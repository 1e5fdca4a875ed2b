"""The program of a device's process: it imports the runtime from where this process has it, whatever else there is.

A bundle's `run.py` imports `runtime` from the bundle's open directory, each file compared with the manifest's digest:
the child does the same, with the same descriptor and the same digests.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ..errors import VerificationError

ENTRY = "run.py"


@runtime_checkable
class BundleImporter(Protocol):
    """What `run.py` imports the runtime with: `listed` are the digests of the files beneath `directory`."""

    directory: int
    shown: str
    listed: Mapping[str, str]

    def read(self, file: str) -> bytes: ...


def program() -> tuple[str, tuple[int, ...]]:
    """Python's text, and the descriptors that it takes. Raises VerificationError where a bundle's entry was changed."""
    loader = __spec__.loader if __spec__ is not None else None
    # What an interactive session calls the working directory.
    lines = ["import sys", f"sys.path[:] = {[os.path.abspath(path) for path in sys.path]!r}"]
    descriptors: tuple[int, ...] = ()
    if isinstance(loader, BundleImporter):
        source = loader.read(ENTRY)
        if f"sha256:{hashlib.sha256(source).hexdigest()}" != loader.listed.get(ENTRY):
            raise VerificationError("was changed since it was verified", where=f"{loader.shown}/{ENTRY}")
        lines += [
            "entry = {'__name__': 'entry'}",
            f"exec(compile({source.decode()!r}, {ENTRY!r}, 'exec'), entry)",
            f"importer = entry['Runtime']({loader.directory}, {loader.shown!r})",
            f"importer.listed = {dict(loader.listed)!r}",
            "sys.meta_path.insert(0, importer)",
        ]
        descriptors = (loader.directory,)
    lines += [f"from {__package__}.process_main import main", "main()"]
    return "\n".join(lines) + "\n", descriptors
