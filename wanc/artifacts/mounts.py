"""Which file system a path lies on."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
_REMOTE = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre", "ceph", "beegfs")


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The kind of the file system of `path` (`ext4`, `nfs4`), which need not exist yet; "" where that is not known."""
    place = Path(os.path.realpath(path))
    kind, longest = "", ""
    with suppress(OSError):
        for line in mounts.read_text("utf-8", "surrogateescape").splitlines():
            fields = line.split(" ")
            if len(fields) < 3:
                continue
            mount = _unescaped(fields[1])
            # Of two mounts on one place, the later one covers the earlier.
            if len(mount) >= len(longest) and place.is_relative_to(mount):
                kind, longest = fields[2], mount
    return kind


def is_remote(kind: str) -> bool:
    """Whether other machines can write there too. Locks between machines depend on the server."""
    return kind.startswith(_REMOTE)


def _unescaped(field: str) -> str:
    """The kernel writes space, tab, newline and backslash as three octal digits (proc_pid_mounts(5), fstab(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
